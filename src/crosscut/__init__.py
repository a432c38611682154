"""Every combination of video clips, with music and a spoken voice-over, spliced instead of rendered.

The map, in the order of the journey. What is above knows nothing of what is below it, but for the words and tools.

    errors         what can go wrong, by stage                                        pure
    media          the words of media: time, clip facts, formats, differences()       pure
    links          share links and names of objects: where their bytes are            pure
    cuts           a clip: a source, a part of it, how loud, and its label            pure
    disk           what the disk may say; links, and what lasts
    settings       CROSSCUT_… variables
    glyphs         which characters our fonts have                                    pure
    graphemes      text -> what a reader takes for single characters                  pure
    coverage       which font draws a character, and what none draws                  pure
    keys           API keys: made, spelled, compared                                  pure
    tracing        what a trace is told
    telemetry      log lines and progress
    otel           traces sent by OpenTelemetry

    strictjson     JSON without its traps                                             pure
    notation       how sizes and rates are written                                    pure
    refusals       sentences for what a request gets wrong                            pure
    bindings       lines that belong to a block or a clip                             pure
    combinations   every combination by index, balanced selections                    pure
    draws          music and lines, drawn evenly from a seed                          pure
    timeline       clips and lines one after another, pictures held for them          pure
    grid           stages of combinations, and what a clip's arrival makes possible   pure
    fields         what the fields of a request may hold                              pure
    request        what a caller sends, or one sentence why not                       pure
    additions      what is added to a task later                                      pure
    naming         safe, unique file names                                            pure
    targets        output formats, derived from the clips                             pure
    plan           every variation by number                                          pure
    drawing        what captions drawn into the pictures cost                         pure
    estimate       what a plan costs                                                  pure
    plandoc        the decided plan as a document and back                            pure
    units          the words between the queue and those who work                     pure
    wants          what a job needs before its plan can be drawn                      pure

    sniff          what a file plainly is when it is no media                         pure
    guard          which URLs and addresses may be dialled
    depot          what machines share: objects by name (protocol)
    folder_depot   a depot on a volume that all machines mount
    artifacts      content-addressed store on disk, with a byte cap
    sharing        pieces and sources in a depot: the first maker's are everybody's
    shared_lease   artifacts with a depot behind them
    commons        what those who work together must agree on, as protocols
    files          the same in files, for the processes of one machine
    slots          how many may do something at once, over all who share
    transfer       one download: pace, resumption, size
    fetch          URL or path -> local file, safely, resumably, once

    isolation      what a child process may not do
    sandbox        run one function on a foreign file in a child process
    spawner        the warm process that forks the children
    decode         the safe way to open and decode media
    boxes          ISO base media boxes, taken apart                                  pure
    mp4            sample tables out of a moov                                        pure
    probe          file -> clip facts
    poster         file -> JPEG

    seeking        frames of a video from a moment on
    bidi           the order of text of both directions                               pure
    burning        captions that become part of the picture                           pure
    typeset        lines of words -> glyphs in their places
    lettering      a caption -> a picture with transparency
    overlay        captions over frames
    conform        clip -> segment of one format
    loudness       ITU-R BS.1770 and the limiter                                      pure
    ducking        how far music goes down under a voice                              pure
    aac            access units in and out
    pcm            decoded sound on disk
    blend          music, voice-overs and clips' own sound -> their sum
    mix            the sum -> soundtrack bodies and tails
    energies       how loud the sum will be, from what its parts measure              pure
    levelling      the sum -> one body at its target
    seams          two bodies -> the access units between them
    voices         Voice protocol; espeak, piper, elevenlabs
    captions       words -> captions as a file and as a track                         pure

    mp4_write      sample tables into a moov                                          pure
    layout         where chunks lie in a file                                         pure
    virtual        a file as a list of extents
    splice         segments + soundtrack -> VirtualFile

    workshop       the tools one job works with
    segments       clips made joinable, once ever
    recipes        what a soundtrack is made of, decoded
    joining        bodies and seams -> the soundtrack of one variation
    soundtracks    soundtracks from shared artifacts
    speech         lines, each spoken once ever
    spending       what voice-overs cost, before any is bought
    gather         sources fetched and probed, the plan drawn from them

    destinations   Destination protocol; folder, Google Drive, object store
    places         the destination behind a name
    bucket_depot   a depot in an object store
    report         rows -> manifest                                                   pure
    pieces         the segments and soundtracks of one plan
    studio         one job's variations: made, played before they are, told as rows
    benches        a workshop for each job at hand in this process
    pipeline       the whole journey in one process
    webhooks       signed events
    crew           those who work: one function for each kind of unit

    store          durable state in SQL: the queue and the truth
    engine         who runs the work: scheduler, executor, worker processes
    status         a job's row as its owner is told                                   pure
    ports          what can be asked of crosscut, as a protocol
    previews       variations and posters that exist nowhere
    listing        a job's variations as pages and as a manifest
    uploads        files that users send
    keyring        API keys in the store
    recent         answers that are good for a moment
    gauges         how an engine and its machine are
    service        what can be asked of crosscut: the answers
    machine        an engine, running

    api            the REST API
    serving        the API on a socket
    client         a server as its command line sees it
    bootstrap      the one place that builds objects from settings
    standalone     the engine of one machine, and the server in front of an engine
    cluster        the engine of many machines
    rendering      one request made here and now: a job in a private state
    doctor         what this machine has and lacks
    terminal       progress bars and tables
    commands       the commands that talk to a server, or are one
    cli            the command line
"""

__version__ = "0.1.0"
