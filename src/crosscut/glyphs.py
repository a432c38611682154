"""Which characters the fonts in `fonts/` have. Generated from them by `tests/font_table.py`. Pure."""

FACES = {
    "Inter": """
        20-7e a0-ac ae-148 14a-1c3 1c5-31e 321-377 37a-37f 384-38a 38c 38e-3a1 3a3-3e1 3f0-49d 4a0-4ff 52f e3f 1d43
        1d47-1d49 1d4d 1d4f-1d50 1d52 1d56-1d58 1d5b 1d62-1d65 1d9c 1da0 1dbb 1dbf-1df5 1dfc-1f15 1f18-1f1d 1f20-1f45
        1f48-1f4d 1f50-1f57 1f59 1f5b 1f5d 1f5f-1f7d 1f80-1fb4 1fb6-1fc4 1fc6-1fd3 1fd6-1fdb 1fdd-1fef 1ff2-1ff4
        1ff6-1ffe 2000-200a 2010-2027 202f-205f 2070-2071 2074-208e 2090-209c 20a0-20bf 20db-20de 20e8 20f0 2100-2101
        2103 2105-2106 2109 2113 2116-2117 211e-2123 2126 212a-212b 212e 2132 213b 214d 214f 2153 215a-2188 2190-2199
        21a9-21aa 21b0-21b1 21b3-21b5 21ba-21bb 21d0 21d2 21d4 21de-21df 21e4-21e5 21e7 21ea 2202 2205-2206 220f
        2211-2212 221a 221e 222b 2248 2260 2264-2265 2303 2305 2318 2325-2327 232b 2380 2387 238b 23ce-23cf 2423
        2460-2468 24b6-24cf 24ea 25a0-25a2 25aa 25b2-25b3 25b6-25b7 25ba-25bd 25c0-25c1 25c4-25c7 25ca-25cb 25cf 25e6
        25ef 2600 2605-2606 263c 2661 2665 26a0 2713 2717 2756 2764 2780-2788 27ef 27f5-27fa 2b06 2b12-2b13 2c7c 2c7f
        2dff 2e18 a69f a7ff a92e fe20-fe2d 1f12f-1f149 1f16a-1f16b 1f850 1f852
    """,
    "NotoSans": """
        20-7e a0-ac ae-377 37a-37f 384-38a 38c 38e-3a1 3a3-3e1 3f0-52f 1ab0-1ac0 1c80-1c88 1d00-1df9 1dfb-1f15
        1f18-1f1d 1f20-1f45 1f48-1f4d 1f50-1f57 1f59 1f5b 1f5d 1f5f-1f7d 1f80-1fb4 1fb6-1fc4 1fc6-1fd3 1fd6-1fdb
        1fdd-1fef 1ff2-1ff4 1ff6-1ffe 2000-200a 2010-2029 202f-205f 2070-2071 2074-208e 2090-209c 20a0-20bf 20f0
        2100-215f 2184 2189 25cc 2c60-2c7f 2de0-2e52 a640-a69f a700-a7bf a7c2-a7ca a7f5-a7ff a92e ab30-ab6b fb00-fb06
        fe00 fe20-fe2f
    """,
    "NotoSansArabic": """
        20-21 2c-2e 30-3a a0 ab bb 34f 600-61b 61e-6ff 750-77f 8a0-8b4 8b6-8be 8d3-8ff 2010-2011 204f 25cc 2e41
        fb50-fbc1 fbd3-fd3f fd50-fd8f fd92-fdc7 fdf0-fdfd fe70-fe74 fe76-fefc
    """,
    "NotoSansArmenian": """
        20 2d a0 308 531-556 559-58a 58d-58f 2010 25cc fb13-fb17
    """,
    "NotoSansBengali": """
        20-23 25 27-3f 5b-5f 7b-7e a0 d7 f7 2bc 951-952 964-965 980-983 985-98c 98f-990 993-9a8 9aa-9b0 9b2 9b6-9b9
        9bc-9c4 9c7-9c8 9cb-9ce 9d7 9dc-9dd 9df-9e3 9e6-9fe 1cd0 1cd2 1cd5-1cd6 1cd8 1ce1 1cea 1ced 1cf2 1cf5-1cf7
        2010 2013-2014 2018-2019 201c-201d 2026 20b9 2212 25cc a8f1
    """,
    "NotoSansDevanagari": """
        20-23 25 27-3f 5b-5f 7b-7e a0 d7 f7 2bc 900-97f 1cd0-1cf6 1cf8-1cf9 2010 2013-2014 2018-2019 201c-201d 2026
        20b9 20f0 2212 25cc a830-a839 a8e0-a8ff
    """,
    "NotoSansEthiopic": """
        20 2d a0 308 30e 1200-1248 124a-124d 1250-1256 1258 125a-125d 1260-1288 128a-128d 1290-12b0 12b2-12b5
        12b8-12be 12c0 12c2-12c5 12c8-12d6 12d8-1310 1312-1315 1318-135a 135d-137c 1380-1399 2010 22ee 25cc 2d80-2d96
        2da0-2da6 2da8-2dae 2db0-2db6 2db8-2dbe 2dc0-2dc6 2dc8-2dce 2dd0-2dd6 2dd8-2dde ab01-ab06 ab09-ab0e ab11-ab16
        ab20-ab26 ab28-ab2e
    """,
    "NotoSansGeorgian": """
        20 2d a0 301-302 304 308 589 10a0-10c5 10c7 10cd 10d0-10ff 1c90-1cba 1cbd-1cbf 2010 20be 2d00-2d25 2d27 2d2d
    """,
    "NotoSansGujarati": """
        20-23 25 27-3f 5b-5f 7b-7e a0 d7 f7 951-952 964-965 a81-a83 a85-a8d a8f-a91 a93-aa8 aaa-ab0 ab2-ab3 ab5-ab9
        abc-ac5 ac7-ac9 acb-acd ad0 ae0-ae3 ae6-af1 af9-aff 2010 2013-2014 2018-2019 201c-201d 2026 20b9 2212 25cc
        a830-a839
    """,
    "NotoSansGurmukhi": """
        20-23 25 27-3f 5b-5f 7b-7e a0 d7 f7 951-952 964-965 a01-a03 a05-a0a a0f-a10 a13-a28 a2a-a30 a32-a33 a35-a36
        a38-a39 a3c a3e-a42 a47-a48 a4b-a4d a51 a59-a5c a5e a66-a76 2010 2013-2014 2018-2019 201c-201d 2026 20b9 2212
        25cc 262c a830-a839
    """,
    "NotoSansHebrew": """
        20 2d a0 591-5c7 5d0-5ea 5f0-5f4 2010 20aa 25cc fb1d-fb36 fb38-fb3c fb3e fb40-fb41 fb43-fb44 fb46-fb4f
    """,
    "NotoSansKannada": """
        20-23 25 27-3f 5b-5f 7b-7e a0 d7 f7 951-952 964-965 c80-c8c c8e-c90 c92-ca8 caa-cb3 cb5-cb9 cbc-cc4 cc6-cc8
        cca-ccd cd5-cd6 cde ce0-ce3 ce6-cef cf1-cf2 1cd0 1cd2 1cda 1cf2 1cf4-1cf5 2010 2013-2014 2018-2019 201c-201d
        2026 20b9 2212 25cc a830-a835
    """,
    "NotoSansKhmer": """
        20-22 27-29 2c-2f 3a-3b 3f a0 ab bb 1780-17dd 17e0-17e9 17f0-17f9 19e0-19ff 2010 2018-2019 201c-201d 2026 25cc
    """,
    "NotoSansLao": """
        20 a0 e81-e82 e84 e87-e88 e8a e8d e94-e97 e99-e9f ea1-ea3 ea5 ea7 eaa-eab ead-eb9 ebb-ebd ec0-ec4 ec6 ec8-ecd
        ed0-ed9 edc-edf 20ad 25cc
    """,
    "NotoSansMalayalam": """
        20-23 25 27-3f 5b-5f 7b-7e a0 d7 f7 307 323 951-952 964-965 d00-d0c d0e-d10 d12-d44 d46-d48 d4a-d4f d54-d63
        d66-d7f 1cda 2010 2013-2014 2018-2019 201c-201d 2026 20b9 2212 25cc a830-a832
    """,
    "NotoSansMyanmar": """
        20 3f a0 1000-109f 2018-2019 201c-201d 2026 25cc a92e a9e0-a9fe aa60-aa7f fe00
    """,
    "NotoSansOriya": """
        20-23 25 27-2c 2e-3f 5b-5f 7b-7e a0 d7 f7 964-965 b01-b03 b05-b0c b0f-b10 b13-b28 b2a-b30 b32-b33 b35-b39
        b3c-b44 b47-b48 b4b-b4d b56-b57 b5c-b5d b5f-b63 b66-b77 2010 2013-2014 2018-2019 201c-201d 2026 20b9 2212 25cc
    """,
    "NotoSansSinhala": """
        20-23 25 27-3f 5b-5f 7b-7e a0 d7 f7 964-965 d81-d83 d85-d96 d9a-db1 db3-dbb dbd dc0-dc6 dca dcf-dd4 dd6
        dd8-ddf de6-def df2-df4 2013-2014 2018-2019 201c-201d 2026 2212 25cc 111e1-111f4
    """,
    "NotoSansTamil": """
        20-23 25 27-3f 5b-5f 7b-7e a0 b2-b3 d7 f7 951-952 964-965 b82-b83 b85-b8a b8e-b90 b92-b95 b99-b9a b9c b9e-b9f
        ba3-ba4 ba8-baa bae-bb9 bbe-bc2 bc6-bc8 bca-bcd bd0 bd7 be6-bfa 1cda 2010 2013-2014 2018-2019 201c-201d 2026
        2074 2082-2084 20b9 2212 25cc a8f3 11301 11303 1133b-1133c
    """,
    "NotoSansTelugu": """
        20-23 25 27-3f 5b-5f 7b-7e a0 d7 f7 951-952 964-965 c00-c0c c0e-c10 c12-c28 c2a-c39 c3d-c44 c46-c48 c4a-c4d
        c55-c56 c58-c5a c60-c63 c66-c6f c77-c7f 1cda 1cf2 2010 2013-2014 2018-2019 201c-201d 2026 20b9 2212 25cc
    """,
    "NotoSansThaana": """
        20-21 28-29 2c 2e 3a-3b a0 60c 61b 61f 660-66c 780-7b1 2018-2019 201c-201d 25cc fdf2 fdfd
    """,
    "NotoSansThai": """
        20 2d a0 2bc 2d7 303 331 e01-e3a e3f-e5b 2010 25cc
    """,
    "NotoSansSymbols": """
        20 30-39 41-5a 61-7a a0 20dd-20e0 20e2-20e4 2160-2183 2185-2188 218a-218b 2190-2199 2300-230f 2311-2315 2317
        231c-231f 2322-2323 2329-232a 232c-2335 237c 2380-2394 2396-239a 23af 23be-23cd 23d0-23db 23e2-23e8 2460-24ff
        25cc 260a-260d 2613 2624-262f 2638-263b 263d-2653 2669-267e 2690-269d 26a2-26a9 26ad-26bc 26ce 26e2-26ff
        271d-2721 2776-2793 2921-2922 1f100-1f10c 1f110-1f16c 1f170-1f190 1f19b-1f1ac 1f546-1f549 1f54f 1f610
        1f700-1f773
    """,
}
"""Of every font for text, best first: ranges of code points, hexadecimal."""

PICTURES = """
    23 2a 30-39 a9 ae 203c 2049 20e3 2122 2139 2194-2199 21a9-21aa 231a-231b 2328 23cf 23e9-23f3 23f8-23fa 24c2
    25aa-25ab 25b6 25c0 25fb-25fe 2600-2604 260e 2611 2614-2615 2618 261d 2620 2622-2623 2626 262a 262e-262f 2638-263a
    2640 2642 2648-2653 265f-2660 2663 2665-2666 2668 267b 267e-267f 2692-2697 2699 269b-269c 26a0-26a1 26a7 26aa-26ab
    26b0-26b1 26bd-26be 26c4-26c5 26c8 26ce-26cf 26d1 26d3-26d4 26e9-26ea 26f0-26f5 26f7-26fa 26fd 2702 2705 2708-270d
    270f 2712 2714 2716 271d 2721 2728 2733-2734 2744 2747 274c 274e 2753-2755 2757 2763-2764 2795-2797 27a1 27b0 27bf
    2934-2935 2b05-2b07 2b1b-2b1c 2b50 2b55 3030 303d 3297 3299 1f004 1f0cf 1f170-1f171 1f17e-1f17f 1f18e 1f191-1f19a
    1f201-1f202 1f21a 1f22f 1f232-1f23a 1f250-1f251 1f300-1f321 1f324-1f393 1f396-1f397 1f399-1f39b 1f39e-1f3f0
    1f3f3-1f3f5 1f3f7-1f4fd 1f4ff-1f53d 1f549-1f54e 1f550-1f567 1f56f-1f570 1f573-1f57a 1f587 1f58a-1f58d 1f590
    1f595-1f596 1f5a4-1f5a5 1f5a8 1f5b1-1f5b2 1f5bc 1f5c2-1f5c4 1f5d1-1f5d3 1f5dc-1f5de 1f5e1 1f5e3 1f5e8 1f5ef 1f5f3
    1f5fa-1f64f 1f680-1f6c5 1f6cb-1f6d2 1f6d5-1f6d9 1f6dc-1f6e5 1f6e9 1f6eb-1f6ec 1f6f0 1f6f3-1f6fc 1f7e0-1f7eb 1f7f0
    1f90c-1f93a 1f93c-1f945 1f947-1f9ff 1fa70-1fa7c 1fa80-1fac6 1fac8 1facc-1fadd 1fadf-1faeb 1faef-1fafa
"""
"""Characters that the emoji font has."""

FLAGS = """
    AC AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
    CA CC CD CF CG CH CI CK CL CM CN CO CP CQ CR CU CV CW CX CY CZ DE DG DJ DK DM DO DZ EA EC EE EG EH ER ES ET EU FI
    FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU IC ID IE IL IM IN IO IQ
    IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML
    MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS
    PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TA TC TD TF TG TH TJ TK
    TL TM TN TO TR TT TV TW TZ UA UG UM UN US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW
"""
"""Letters of its flags."""

SEQUENCES = """
    #⃣ *⃣ 0⃣ 1⃣ 2⃣ 3⃣ 4⃣ 5⃣ 6⃣ 7⃣ 8⃣ 9⃣ ☝+ ⛓_💥 ⛹+ ⛹+_♀ ⛹+_♂ ⛹_♀ ⛹_♂
    ✊+ ✋+ ✌+ ✍+ ❤_🔥 ❤_🩹 🍄_🟫 🍋_🟩 🎅+ 🏂+ 🏃+ 🏃+_♀ 🏃+_♀_➡ 🏃+_♂ 🏃+_♂_➡
    🏃+_➡ 🏃_♀ 🏃_♀_➡ 🏃_♂ 🏃_♂_➡ 🏃_➡ 🏄+ 🏄+_♀ 🏄+_♂ 🏄_♀ 🏄_♂ 🏇+ 🏊+ 🏊+_♀
    🏊+_♂ 🏊_♀ 🏊_♂ 🏋+ 🏋+_♀ 🏋+_♂ 🏋_♀ 🏋_♂ 🏌+ 🏌+_♀ 🏌+_♂ 🏌_♀ 🏌_♂ 🏳_⚧ 🏳_🌈
    🏴_☠ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🏴󠁧󠁢󠁷󠁬󠁳󠁿 🐈_⬛ 🐕_🦺 🐦_⬛ 🐦_🔥 🐻_❄ 👁_🗨 👂+ 👃+ 👆+ 👇+
    👈+ 👉+ 👊+ 👋+ 👌+ 👍+ 👎+ 👏+ 👐+ 👦+ 👧+ 👨+ 👨+_⚕ 👨+_⚖ 👨+_✈ 👨+_❤_👨+
    👨+_❤_💋_👨+ 👨+_🌾 👨+_🍳 👨+_🍼 👨+_🎓 👨+_🎤 👨+_🎨 👨+_🏫 👨+_🏭 👨+_🐰_👨- 👨+_💻
    👨+_💼 👨+_🔧 👨+_🔬 👨+_🚀 👨+_🚒 👨+_🤝_👨- 👨+_🦯 👨+_🦯_➡ 👨+_🦰 👨+_🦱 👨+_🦲 👨+_🦳
    👨+_🦼 👨+_🦼_➡ 👨+_🦽 👨+_🦽_➡ 👨+_🫯_👨- 👨_⚕ 👨_⚖ 👨_✈ 👨_❤_👨 👨_❤_💋_👨 👨_🌾
    👨_🍳 👨_🍼 👨_🎓 👨_🎤 👨_🎨 👨_🏫 👨_🏭 👨_👦 👨_👦_👦 👨_👧 👨_👧_👦 👨_👧_👧 👨_👨_👦
    👨_👨_👦_👦 👨_👨_👧 👨_👨_👧_👦 👨_👨_👧_👧 👨_👩_👦 👨_👩_👦_👦 👨_👩_👧 👨_👩_👧_👦
    👨_👩_👧_👧 👨_💻 👨_💼 👨_🔧 👨_🔬 👨_🚀 👨_🚒 👨_🦯 👨_🦯_➡ 👨_🦰 👨_🦱 👨_🦲 👨_🦳 👨_🦼
    👨_🦼_➡ 👨_🦽 👨_🦽_➡ 👩+ 👩+_⚕ 👩+_⚖ 👩+_✈ 👩+_❤_👨+ 👩+_❤_👩+ 👩+_❤_💋_👨+
    👩+_❤_💋_👩+ 👩+_🌾 👩+_🍳 👩+_🍼 👩+_🎓 👩+_🎤 👩+_🎨 👩+_🏫 👩+_🏭 👩+_🐰_👩- 👩+_💻
    👩+_💼 👩+_🔧 👩+_🔬 👩+_🚀 👩+_🚒 👩+_🤝_👨- 👩+_🤝_👩- 👩+_🦯 👩+_🦯_➡ 👩+_🦰 👩+_🦱
    👩+_🦲 👩+_🦳 👩+_🦼 👩+_🦼_➡ 👩+_🦽 👩+_🦽_➡ 👩+_🫯_👩- 👩_⚕ 👩_⚖ 👩_✈ 👩_❤_👨
    👩_❤_👩 👩_❤_💋_👨 👩_❤_💋_👩 👩_🌾 👩_🍳 👩_🍼 👩_🎓 👩_🎤 👩_🎨 👩_🏫 👩_🏭 👩_👦 👩_👦_👦
    👩_👧 👩_👧_👦 👩_👧_👧 👩_👩_👦 👩_👩_👦_👦 👩_👩_👧 👩_👩_👧_👦 👩_👩_👧_👧 👩_💻 👩_💼 👩_🔧
    👩_🔬 👩_🚀 👩_🚒 👩_🦯 👩_🦯_➡ 👩_🦰 👩_🦱 👩_🦲 👩_🦳 👩_🦼 👩_🦼_➡ 👩_🦽 👩_🦽_➡ 👫+ 👬+
    👭+ 👮+ 👮+_♀ 👮+_♂ 👮_♀ 👮_♂ 👯+ 👯+_♀ 👯+_♂ 👯_♀ 👯_♂ 👰+ 👰+_♀ 👰+_♂ 👰_♀
    👰_♂ 👱+ 👱+_♀ 👱+_♂ 👱_♀ 👱_♂ 👲+ 👳+ 👳+_♀ 👳+_♂ 👳_♀ 👳_♂ 👴+ 👵+ 👶+ 👷+
    👷+_♀ 👷+_♂ 👷_♀ 👷_♂ 👸+ 👼+ 💁+ 💁+_♀ 💁+_♂ 💁_♀ 💁_♂ 💂+ 💂+_♀ 💂+_♂ 💂_♀
    💂_♂ 💃+ 💅+ 💆+ 💆+_♀ 💆+_♂ 💆_♀ 💆_♂ 💇+ 💇+_♀ 💇+_♂ 💇_♀ 💇_♂ 💏+ 💑+ 💪+ 🕴+
    🕵+ 🕵+_♀ 🕵+_♂ 🕵_♀ 🕵_♂ 🕺+ 🖐+ 🖕+ 🖖+ 😮_💨 😵_💫 😶_🌫 🙂_↔ 🙂_↕ 🙅+ 🙅+_♀
    🙅+_♂ 🙅_♀ 🙅_♂ 🙆+ 🙆+_♀ 🙆+_♂ 🙆_♀ 🙆_♂ 🙇+ 🙇+_♀ 🙇+_♂ 🙇_♀ 🙇_♂ 🙋+ 🙋+_♀
    🙋+_♂ 🙋_♀ 🙋_♂ 🙌+ 🙍+ 🙍+_♀ 🙍+_♂ 🙍_♀ 🙍_♂ 🙎+ 🙎+_♀ 🙎+_♂ 🙎_♀ 🙎_♂ 🙏+ 🚣+
    🚣+_♀ 🚣+_♂ 🚣_♀ 🚣_♂ 🚴+ 🚴+_♀ 🚴+_♂ 🚴_♀ 🚴_♂ 🚵+ 🚵+_♀ 🚵+_♂ 🚵_♀ 🚵_♂ 🚶+
    🚶+_♀ 🚶+_♀_➡ 🚶+_♂ 🚶+_♂_➡ 🚶+_➡ 🚶_♀ 🚶_♀_➡ 🚶_♂ 🚶_♂_➡ 🚶_➡ 🛀+ 🛌+ 🤌+ 🤏+
    🤘+ 🤙+ 🤚+ 🤛+ 🤜+ 🤝+ 🤞+ 🤟+ 🤦+ 🤦+_♀ 🤦+_♂ 🤦_♀ 🤦_♂ 🤰+ 🤱+ 🤲+ 🤳+ 🤴+ 🤵+
    🤵+_♀ 🤵+_♂ 🤵_♀ 🤵_♂ 🤶+ 🤷+ 🤷+_♀ 🤷+_♂ 🤷_♀ 🤷_♂ 🤸+ 🤸+_♀ 🤸+_♂ 🤸_♀ 🤸_♂
    🤹+ 🤹+_♀ 🤹+_♂ 🤹_♀ 🤹_♂ 🤼+ 🤼+_♀ 🤼+_♂ 🤼_♀ 🤼_♂ 🤽+ 🤽+_♀ 🤽+_♂ 🤽_♀ 🤽_♂
    🤾+ 🤾+_♀ 🤾+_♂ 🤾_♀ 🤾_♂ 🥷+ 🦵+ 🦶+ 🦸+ 🦸+_♀ 🦸+_♂ 🦸_♀ 🦸_♂ 🦹+ 🦹+_♀ 🦹+_♂
    🦹_♀ 🦹_♂ 🦻+ 🧍+ 🧍+_♀ 🧍+_♂ 🧍_♀ 🧍_♂ 🧎+ 🧎+_♀ 🧎+_♀_➡ 🧎+_♂ 🧎+_♂_➡ 🧎+_➡
    🧎_♀ 🧎_♀_➡ 🧎_♂ 🧎_♂_➡ 🧎_➡ 🧏+ 🧏+_♀ 🧏+_♂ 🧏_♀ 🧏_♂ 🧑+ 🧑+_⚕ 🧑+_⚖ 🧑+_✈
    🧑+_❤_💋_🧑- 🧑+_❤_🧑- 🧑+_🌾 🧑+_🍳 🧑+_🍼 🧑+_🎄 🧑+_🎓 🧑+_🎤 🧑+_🎨 🧑+_🏫 🧑+_🏭
    🧑+_🐰_🧑- 🧑+_💻 🧑+_💼 🧑+_🔧 🧑+_🔬 🧑+_🚀 🧑+_🚒 🧑+_🤝_🧑+ 🧑+_🦯 🧑+_🦯_➡ 🧑+_🦰
    🧑+_🦱 🧑+_🦲 🧑+_🦳 🧑+_🦼 🧑+_🦼_➡ 🧑+_🦽 🧑+_🦽_➡ 🧑+_🩰 🧑+_🫯_🧑- 🧑_⚕ 🧑_⚖ 🧑_✈
    🧑_🌾 🧑_🍳 🧑_🍼 🧑_🎄 🧑_🎓 🧑_🎤 🧑_🎨 🧑_🏫 🧑_🏭 🧑_💻 🧑_💼 🧑_🔧 🧑_🔬 🧑_🚀 🧑_🚒
    🧑_🤝_🧑 🧑_🦯 🧑_🦯_➡ 🧑_🦰 🧑_🦱 🧑_🦲 🧑_🦳 🧑_🦼 🧑_🦼_➡ 🧑_🦽 🧑_🦽_➡ 🧑_🧑_🧒
    🧑_🧑_🧒_🧒 🧑_🧒 🧑_🧒_🧒 🧑_🩰 🧒+ 🧓+ 🧔+ 🧔+_♀ 🧔+_♂ 🧔_♀ 🧔_♂ 🧕+ 🧖+ 🧖+_♀ 🧖+_♂
    🧖_♀ 🧖_♂ 🧗+ 🧗+_♀ 🧗+_♂ 🧗_♀ 🧗_♂ 🧘+ 🧘+_♀ 🧘+_♂ 🧘_♀ 🧘_♂ 🧙+ 🧙+_♀ 🧙+_♂
    🧙_♀ 🧙_♂ 🧚+ 🧚+_♀ 🧚+_♂ 🧚_♀ 🧚_♂ 🧛+ 🧛+_♀ 🧛+_♂ 🧛_♀ 🧛_♂ 🧜+ 🧜+_♀ 🧜+_♂
    🧜_♀ 🧜_♂ 🧝+ 🧝+_♀ 🧝+_♂ 🧝_♀ 🧝_♂ 🧞_♀ 🧞_♂ 🧟_♀ 🧟_♂ 🫃+ 🫄+ 🫅+ 🫰+ 🫱+
    🫱+_🫲- 🫲+ 🫳+ 🫴+ 🫵+ 🫶+ 🫷+ 🫸+ 🫹+ 🫺+
"""
"""Characters that it draws as one, but for variation selectors. `+`: any skin tone, `-`: any but that, `_`: joiner."""
