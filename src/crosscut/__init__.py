"""Every combination of video clips, with music and a spoken voice-over, spliced instead of rendered.

The map, in the order of the journey. What is above knows nothing of what is below it, but for the words and tools.

    errors         what can go wrong, by stage                                        pure
    media          the words of media: time, clip facts, formats, differences()       pure
    settings       CROSSCUT_… variables
    telemetry      log lines and progress

    strictjson     JSON without its traps                                             pure
    notation       how sizes and rates are written                                    pure
    refusals       sentences for what a request gets wrong                            pure
    request        what a caller sends, or one sentence why not                       pure
    combinations   every combination by index, balanced selections                    pure
    draws          music and lines, drawn evenly from a seed                          pure
    naming         safe, unique file names                                            pure
    targets        output formats, derived from the clips                             pure
    plan           every variation by number                                          pure
    estimate       what a plan costs                                                  pure

    sniff          what a file plainly is when it is no media                         pure
    guard          which URLs and addresses may be dialled
    artifacts      content-addressed store on disk, with a byte cap
    transfer       one download: pace, resumption, size
    fetch          URL or path -> local file, safely, resumably, once

    isolation      what a child process may not do
    sandbox        run one function on a foreign file in a child process
    spawner        the warm process that forks the children
    decode         the safe way to open and decode media
    boxes          ISO base media boxes, taken apart                                  pure
    mp4            sample tables out of a moov                                        pure
    probe          file -> clip facts

    conform        clip -> segment of one format
    loudness       ITU-R BS.1770 and the limiter                                      pure
    aac            access units in and out
    pcm            decoded sound on disk
    mix            music + voice-over -> soundtrack bodies and tails
    voices         Voice protocol; espeak

    mp4_write      sample tables into a moov                                          pure
    virtual        a file as a list of extents
    splice         segments + soundtrack -> VirtualFile

    workshop       the tools one job works with
    segments       clips made joinable, once ever
    soundtracks    soundtracks from shared artifacts
    speech         the request's lines, each spoken once
    gather         fetch and probe all sources, draw the plan

    destinations   Destination protocol; folder
    journal        what has been delivered
    report         outcomes -> summary, manifest                                      pure
    pipeline       the journey as functions over values and protocols

    bootstrap      the one place that builds objects from settings
    doctor         what this machine has and lacks
    terminal       progress bars and tables
    cli            the command line
"""

__version__ = "0.1.0"
