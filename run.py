import pathlib,subprocess,os,sys
M=[
("artifacts","            with suppress(Timeout), alive:\n","            with suppress(Timeout):\n"),
("artifacts","                if not blob.held:","                if True:"),
("artifacts","            if status.st_size == 0:","            if False:"),
("artifacts","        with self._lock(key[:3], waiting):\n            yield","        yield"),
("artifacts","sorted(blobs, key=lambda blob: blob.used)","sorted(blobs, key=lambda blob: -blob.used)"),
("artifacts","                    os.utime(blob)","                    pass"),
("artifacts","            for suffix in suffixes:\n                self._forget(key, suffix)\n",""),
("artifacts","error = error.__cause__ or error.__context__","error = None"),
("artifacts","        os.fchmod(descriptor, 0o444)\n",""),
("artifacts","            if total > self._max_bytes:\n                self._evict","            if False:\n                self._evict"),
("artifacts","            if len(found) == len(suffixes):","            if found:"),
("artifacts","                waiting()\n","                pass\n") ,
("guard","elif ip not in GLOBAL_UNICAST or (int(ip) >> 32) & 0xFFFFFFFF in ISATAP","elif ip not in GLOBAL_UNICAST"),
("guard","        if ip in NAT64:","        if False:"),
("guard","elif ip.ipv4_mapped is not None","elif False"),
("guard","not all(is_public(address) for","not any(is_public(address) for"),
("guard","if port not in self._ports and not known","if False"),
("guard","(host.lower(), port) in self._allow","host.lower() in {h for h, _ in self._allow}"),
("guard","    if url.userinfo:","    if False:"),
("guard","trust_env=False, timeout","trust_env=True, timeout"),
("guard",'or "\\\\" in text',''),
("guard","        while True:\n            self._watch()","        while True:"),
("guard","not any(ip in network for network in NOT_PUBLIC)","True"),
("guard","self._dial(address, port,","self._dial(host, port,"),
("guard","fragment=None","port=url.port"),
("guard","network_backend=guard, http2","http2"),
("fetch","                url = checked_url(str(url.join(target)))","                url = url.join(target)"),
("fetch","if self._size and _is_strong(etag)","if self._size and etag"),
("fetch",'"If-Range": etag','"X-If-Range": etag'),
("fetch","if self._size >= reached + PROGRESS","if self._size > reached"),
("fetch","if self._size >= reached + PROGRESS","if False"),
("fetch","return min(pause, self._limits.longest_pause)","return pause"),
("fetch","        if self._size > self._limits.max_bytes:","        if False:"),
("fetch","if self._total is not None and self._total > self._limits.max_bytes","if False"),
("fetch",'"identity").lower() != "identity"','"identity").lower() == "x"'),
("fetch",'declared.startswith("text/html")','declared.startswith("text/htmlx")'),
("fetch",'or note["fetched"] < self._since','or True'),
("fetch",'or note["fetched"] < self._since','or False'),
("fetch","known = None if path is None else note","known = note"),
("fetch","        if self._size <= HEAD:\n","        if False:\n"),
("fetch","        if before <= HEAD < self._size:","        if False:"),
("fetch","            if self._received < self._limits.slowest","            if False and self._received < self._limits.slowest"),
("fetch","        if now >= self._end:","        if False:"),
("fetch","        self._cancelled.wait(min(seconds","        time.sleep(min(seconds"),
("fetch","with self._lease.locked(key, waiting=pace.check_cancelled):\n            note","with self._lease.locked(key):\n            note"),
("fetch","os.O_RDONLY | os.O_NONBLOCK","os.O_RDONLY"),
("fetch","mtime=status.st_mtime_ns","mtime=0"),
("fetch",'if not response.headers.get("content-range", "").startswith','if False and response.headers.get("content-range", "").startswith'),
("fetch","if resumed and status == HTTPStatus.REQUESTED","if False and status == HTTPStatus.REQUESTED"),
("fetch","            self._file.truncate()","            pass"),
("fetch","range(self._limits.redirects + 1)","range(99)"),
("fetch","            if status.st_size > self._limits.max_bytes","            if False"),
("fetch","            scratch.unlink(missing_ok=True)\n\n    def _fetch_file","            pass\n\n    def _fetch_file"),
]
here=os.getcwd()
env=dict(os.environ,PYTHONPATH=here+"/src",PYTHONDONTWRITEBYTECODE="1")
for f,a,b in M:
    if f not in sys.argv[1:]: continue
    p=pathlib.Path(f"{here}/src/crosscut/{f}.py"); o=p.read_text()
    if o.count(a)<1: print("NOMATCH",f,a); continue
    p.write_text(o.replace(a,b,1))
    tests=["tests/test_artifacts.py"] if f=="artifacts" else ["tests/test_guard.py","tests/test_fetch.py"] if f=="guard" else ["tests/test_fetch.py"]
    try:
        r=subprocess.run(["/work/main/.venv/bin/python","-m","pytest","-p","no:cacheprovider","-x","-q",*tests],env=env,capture_output=True,text=True,timeout=60)
        last=[l for l in r.stdout.splitlines() if l.startswith("FAILED") or l.startswith("ERROR")]
        print("killed " if r.returncode==1 else f"SURVIVED({r.returncode})",f,repr(a[:60]),last[:1] and last[0][:110],flush=True)
    except subprocess.TimeoutExpired: print("killed(timeout)",f,repr(a[:60]),flush=True)
    finally: p.write_text(o)
