"""A participant on LiveKit's Python SDK: argv[1] is {url, token, identity, toneHz, colour, v0}."""

import asyncio
import json
import os
import sys

import numpy as np
from google.protobuf.json_format import MessageToDict
from livekit import rtc

OPTIONS = json.loads(sys.argv[1])
RATE_HZ = 48_000
WIDTH, HEIGHT = 640, 360
SILENCE_S = 5
WITHHELD_FRAMES = 30
TASKS = set()


def say(**message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def spawn(coroutine):
    task = asyncio.ensure_future(coroutine)
    TASKS.add(task)
    task.add_done_callback(TASKS.discard)


async def publish_tone(room):
    source = rtc.AudioSource(RATE_HZ, 1)
    track = rtc.LocalAudioTrack.create_audio_track("tone", source)
    await room.local_participant.publish_track(
        track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
    )

    async def feed():
        samples, at = RATE_HZ // 100, 0
        while True:
            times = (at + np.arange(samples)) / RATE_HZ
            wave = (10_000 * np.sin(2 * np.pi * OPTIONS["toneHz"] * times)).astype(np.int16)
            await source.capture_frame(rtc.AudioFrame(wave.tobytes(), RATE_HZ, 1, samples))
            at += samples

    spawn(feed())


async def publish_colour(room):
    source = rtc.VideoSource(WIDTH, HEIGHT)
    track = rtc.LocalVideoTrack.create_video_track("colour", source)
    await room.local_participant.publish_track(
        track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA)
    )
    pixels = bytes([*OPTIONS["colour"], 255]) * (WIDTH * HEIGHT)

    async def feed():
        while True:
            source.capture_frame(rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.RGBA, pixels))
            await asyncio.sleep(0.066)

    spawn(feed())


async def listen(track, sender):
    window = np.zeros(0, dtype=np.int16)
    async for event in rtc.AudioStream(track, sample_rate=RATE_HZ, num_channels=1):
        window = np.concatenate([window, np.frombuffer(event.frame.data, dtype=np.int16)])
        if len(window) < RATE_HZ // 2:
            continue
        spectrum = np.abs(np.fft.rfft(window * np.hanning(len(window))))
        loudest = int(np.argmax(spectrum))
        level = float(np.sqrt(np.mean(window.astype(np.float64) ** 2)))
        say(event="heard", **{"from": sender}, values={"toneHz": loudest * RATE_HZ / len(window), "rms": level})
        window = window[:0]


async def watch(track, publication, sender):
    stream, count = rtc.VideoStream(track), 0
    while True:
        try:
            event = await asyncio.wait_for(anext(stream), SILENCE_S)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError:
            if await frames_decoded(track) < count + WITHHELD_FRAMES:
                continue
            # On a busy machine SDK 1.2.0 at times hands out no more frames of a track after it has published one of its
            # own, while it goes on decoding them; a second VideoStream of the track gets none either.
            say(event="note", note="the SDK decodes and hands out nothing", **{"from": sender}, handed_out=count)
            publication.set_subscribed(False)
            await asyncio.sleep(1)
            publication.set_subscribed(True)
            return
        count += 1
        if count % 10:
            continue
        frame = event.frame.convert(rtc.VideoBufferType.RGBA)
        pixels = np.frombuffer(frame.data, dtype=np.uint8).reshape(frame.height, frame.width, 4)
        # The upper part only: browsers move a mark along the lower edge.
        colour = pixels[: frame.height * 4 // 5, :, :3].reshape(-1, 3).mean(axis=0)
        values = {"colour": [round(float(c)) for c in colour], "width": frame.width, "height": frame.height, "frames": count}
        say(event="heard", **{"from": sender}, values=values)


async def frames_decoded(track):
    inbound = [entry.inbound_rtp for entry in await track.get_stats() if entry.HasField("inbound_rtp")]
    return sum(entry.inbound.frames_decoded for entry in inbound)


async def commands(room):
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        if command["do"] == "data":
            await room.local_participant.publish_data(
                command["text"],
                reliable=command["reliable"],
                topic=command["topic"],
                destination_identities=command.get("to") or [],
            )
        if command["do"] == "stats":
            await say_stats(room)
        if command["do"] == "leave":
            break
    await room.disconnect()


async def say_stats(room):
    for participant in room.remote_participants.values():
        for publication in participant.track_publications.values():
            if not publication.track:
                say(event="stats", **{"from": participant.identity}, track=publication.name, subscribed=False)
                continue
            for entry in await publication.track.get_stats():
                if entry.HasField("inbound_rtp"):
                    say(event="stats", **{"from": participant.identity}, track=publication.name, stats=MessageToDict(entry.inbound_rtp))


async def main():
    room = rtc.Room()

    @room.on("track_subscribed")
    def on_track(track, publication, participant):
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            spawn(listen(track, participant.identity))
        else:
            spawn(watch(track, publication, participant.identity))

    @room.on("data_received")
    def on_data(packet):
        sender = packet.participant.identity if packet.participant else ""
        reliable = packet.kind == rtc.DataPacketKind.KIND_RELIABLE
        say(event="data", packet={"from": sender, "text": packet.data.decode(), "topic": packet.topic or "", "reliable": reliable})

    settings = {"single_peer_connection": False} if OPTIONS.get("v0") else {}
    try:
        await asyncio.wait_for(room.connect(OPTIONS["url"], OPTIONS["token"], rtc.RoomOptions(**settings)), 20)
        await asyncio.wait_for(publish_tone(room), 15)
        await asyncio.wait_for(publish_colour(room), 15)
    except BaseException as error:
        say(event="failed", error=repr(error))
        return
    say(event="published")
    await commands(room)


asyncio.run(main())
# The native library's threads sometimes panic while the interpreter shuts down.
os._exit(0)
