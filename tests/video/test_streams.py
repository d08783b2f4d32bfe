"""What a container takes of the other streams of a file, and that it comes out as it went in."""

import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition

from vqm_jax import errors
from vqm_jax.video import open_video, open_writer, streams

SUFFIXES = ('.mp4', '.mkv', '.mov')


def add_video(output, count=5, rate=25):
  stream = output.add_stream('libx264', rate=rate, options={'bf': '0'})
  stream.width, stream.height, stream.pix_fmt = 32, 32, 'yuv420p'

  def packets():
    for t in range(count):
      frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 30 * t % 255, np.uint8)).reformat(format='yuv420p')
      frame.pts = t
      yield from stream.encode(frame)
    yield from stream.encode(None)

  return stream, packets()


def add_sound(output, codec, rate=48000, seconds=0.2):
  """A tone; the stream, and its packets."""
  stream = output.add_stream(codec, rate=rate, layout='mono')

  def packets():
    stream.codec_context.open(strict=False)
    size = stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(stream.codec_context.format.name, 'mono', rate, frame_size=size)
    tone = 8000 * np.sin(np.arange(int(seconds * rate)) / 9)
    frame = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], 's16', 'mono')
    frame.sample_rate, frame.pts = rate, 0
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
      yield from stream.encode(part)
    yield from stream.encode(None)

  return stream, packets()


def add_raw(output, codec, payload=bytes(16)):
  """A stream of one packet that nobody can or needs to encode."""
  stream = output.add_mux_stream(codec)

  def packets():
    packet = av.Packet(payload)
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = 20
    packet.duration, packet.is_keyframe = 100, True
    yield packet

  return stream, packets()


def add_text(output, codec, text='hello'):
  stream = output.add_stream(codec)
  stream.codec_context.subtitle_header = b'[Script Info]\n'
  payload = {
    'mov_text': b'\0' + bytes([len(text)]) + text.encode(),
    'ass': b'0,0,Default,,0,0,0,,' + text.encode(),
  }.get(codec, text.encode())

  def packets():
    for k in range(2):
      packet = av.Packet(payload)
      packet.stream, packet.time_base = stream, Fraction(1, 1000)
      packet.pts = packet.dts = 20 + 90 * k
      packet.duration, packet.is_keyframe = 60, True
      yield packet

  return stream, packets()


def make(path, *adders, options=None, **metadata):
  """A file of five frames and what `adders` add; each gives a stream and its packets."""
  with av.open(str(path), 'w', container_options=options or {}) as output:
    parts = [add_video(output), *(adder(output) for adder in adders)]
    output.metadata.update(metadata)
    for _, packets in parts:
      output.mux(list(packets))
  return path


def sound(codec, **options):
  return lambda output: add_sound(output, codec, **options)


def raw(codec, **options):
  return lambda output: add_raw(output, codec, **options)


def text(codec, **options):
  return lambda output: add_text(output, codec, **options)


def renamed(codec_id):
  """AC-3 that Matroska calls by another name; names may end in zeros."""

  def rename(path):
    data = path.read_bytes()
    size = len(codec_id)
    # Element 0x86, the size, and the name; what follows is found by the sizes around it, so an equal length is needed.
    old = b'\x86\x89A_MPEG/L3'
    assert data.count(old) == 1 and size <= 9
    path.write_bytes(data.replace(old, b'\x86\x89' + codec_id.ljust(9, b'\0')))

  return rename


# What `ffmpeg -map 0 -c copy` does with a stream of each coding: the containers that it writes. Recorded with FFmpeg
# 9.0.2; `test_the_record_is_right` repeats that where there is an ffmpeg.
SOUND = {
  'aac': ('.mkv', '.mp4 .mkv .mov'),
  'ac3': ('.mkv', '.mp4 .mkv .mov'),
  'eac3': ('.mkv', '.mp4 .mkv .mov'),
  'mp2': ('.mkv', '.mp4 .mkv .mov'),
  'libmp3lame': ('.mkv', '.mp4 .mkv .mov'),
  'alac': ('.mkv', '.mp4 .mkv .mov'),
  'flac': ('.mkv', '.mp4 .mkv'),
  'libopus': ('.mkv', '.mp4 .mkv'),
  'wavpack': ('.mkv', '.mkv'),
  'tta': ('.mkv', '.mkv'),
  'pcm_s16le': ('.mkv', '.mp4 .mkv .mov'),
  'pcm_s24le': ('.mkv', '.mp4 .mkv .mov'),
  'pcm_f32le': ('.mkv', '.mp4 .mkv .mov'),
  'pcm_u8': ('.mkv', '.mkv .mov'),
  'pcm_f32be': ('.mov', '.mp4 .mov'),
  'pcm_s16be': ('.mov', '.mp4 .mkv .mov'),
  'pcm_mulaw': ('.mov', '.mkv .mov'),
  'pcm_alaw': ('.mov', '.mkv .mov'),
  'adpcm_ima_qt': ('.mov', '.mov'),
  'adpcm_ms': ('.avi', '.mkv'),
  'adpcm_ima_wav': ('.avi', '.mkv'),
}
OTHERS = {
  'hdmv_pgs_subtitle': ('.mkv', '.mkv'),
  'dvb_subtitle': ('.mkv', '.mkv'),
  'dvd_subtitle': ('.mkv', '.mp4 .mkv'),
  'hdmv_text_subtitle': ('.mkv', '.mkv'),
  'eia_608': ('.mov', '.mov'),
  'ttml': ('.mp4', '.mp4 .mov'),
}
TEXTS = {
  'subrip': ('.mkv', '.mkv'),
  'ass': ('.mkv', '.mkv'),
  'webvtt': ('.mkv', '.mkv'),
  'mov_text': ('.mp4', '.mp4 .mov'),
}
RECORD = SOUND | OTHERS | TEXTS


def example(tmp_path, codec):
  suffix, _ = RECORD[codec]
  adder = sound(codec) if codec in SOUND else text(codec) if codec in TEXTS else raw(codec)
  return make(tmp_path / f'in{suffix}', adder)


def write(source, path):
  with open_writer(path, fps=source.fps, height=source.height, width=source.width, source=source) as writer:
    for frame in source.frames():
      writer.write(frame)
  return path


def packets(path, *kinds):
  with av.open(str(path)) as container:
    return [
      (bytes(p), round(float(p.pts * p.time_base), 3)) for p in container.demux() if p.size and p.stream.type in kinds
    ]


@pytest.mark.parametrize('codec', RECORD)
@pytest.mark.parametrize('suffix', SUFFIXES)
def test_what_fits_is_copied_as_ffmpeg_does(tmp_path, codec, suffix):
  source = open_video(example(tmp_path, codec), variable_rate=True)
  fits = suffix in RECORD[codec][1].split()
  if codec in SOUND and not fits:
    with pytest.raises(errors.VideoError, match=f'audio .* does not fit into {suffix}; write to .* instead'):
      write(source, tmp_path / f'out{suffix}')
    assert not list(tmp_path.glob('*out*'))
    return
  plan = streams.plan(source, suffix)
  how = list(plan.how.values())
  if fits:
    assert how in (['packets'], ['same tag'])
  else:
    # Closed captions are text as well.
    assert how == (['text'] if codec in TEXTS or codec == 'eia_608' else [])
  assert len(plan.kept) + len(plan.left_out) == 1
  path = write(source, tmp_path / f'out{suffix}')
  found = open_video(path, variable_rate=True)
  assert len(found.other_streams) == len(plan.kept)
  if fits:
    before, after = packets(source.path, 'audio', 'subtitle'), packets(path, 'audio', 'subtitle')
    assert [data for data, _ in after if data] == [data for data, _ in before if data]
  if not plan.kept:
    assert '.mkv could hold it' in plan.left_out[0] or '.mp4' in plan.left_out[0]


@pytest.mark.skipif(not shutil.which('ffmpeg'), reason='needs the program ffmpeg')
@pytest.mark.parametrize('codec', RECORD)
def test_the_record_is_right(tmp_path, codec):
  path = example(tmp_path, codec)
  for suffix in SUFFIXES:
    command = ['ffmpeg', '-v', 'error', '-nostdin', '-i', path, '-map', '0', '-c', 'copy', tmp_path / f'copy{suffix}']
    done = subprocess.run(command, check=False, capture_output=True)
    assert (done.returncode == 0) == (suffix in RECORD[codec][1].split()), done.stderr


def named(path, *names):
  """What the streams after the video are called: (kind, coding, title, language, flags)."""
  with av.open(str(path)) as container:
    return [
      (
        stream.type,
        stream.codec_context.codec.canonical_name if stream.codec_context else None,
        stream.metadata.get('title', stream.metadata.get('name')),
        stream.metadata.get('language'),
        int(stream.disposition),
      )
      for stream in list(container.streams)[1:]
      if stream.discard.name != 'all'
    ]


def with_names(adder, title, language, disposition):
  def add(output):
    stream, packets = adder(output)
    stream.metadata.update({'title': title, 'language': language})
    stream.disposition = disposition
    return stream, packets

  return add


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('before', ['.mkv', '.mp4'])
def test_titles_languages_flags_and_chapters(tmp_path, before, suffix):
  tracks = [
    with_names(sound('aac'), 'Director', 'fra', Disposition.comment),
    with_names(sound('ac3'), 'Main', 'eng', Disposition.default),
    with_names(text('mov_text' if before == '.mp4' else 'subrip'), 'Signs', 'ger', Disposition.forced),
  ]
  path = tmp_path / f'in{before}'
  with av.open(str(path), 'w') as output:
    parts = [add_video(output), *(track(output) for track in tracks)]
    parts[0][0].metadata.update({'title': 'Camera A', 'language': 'jpn'})
    output.metadata['title'] = 'Film'
    output.set_chapters(
      [
        {'id': k, 'start': 100 * k, 'end': 100 * k + 100, 'time_base': Fraction(1, 1000), 'metadata': {'title': title}}
        for k, title in enumerate(['One', 'Zwei ä'])
      ]
    )
    for _, packets in parts:
      output.mux(list(packets))
  source = open_video(path, variable_rate=True)
  path = write(source, tmp_path / f'out{suffix}')
  text_codec = 'mov_text' if suffix != '.mkv' else 'subrip'
  assert named(path) == [
    # QuickTime knows no comments.
    ('audio', 'aac', 'Director', 'fra', 0 if suffix == '.mov' else Disposition.comment),
    ('audio', 'ac3', 'Main', 'eng', Disposition.default),
    ('subtitle', text_codec, 'Signs', 'ger', named(path)[2][4]),
  ]
  with av.open(str(path)) as container:
    main = container.streams.video[0]
    assert main.metadata.get('title', main.metadata.get('name')) == 'Camera A' and main.language == 'jpn'
    assert container.metadata['title'] == 'Film'
    chapters = [(float(c['start'] * c['time_base']), c['metadata']['title']) for c in container.chapters()]
  assert chapters == [(0.0, 'One'), (0.1, 'Zwei ä')]


@pytest.mark.parametrize('after', SUFFIXES)
@pytest.mark.parametrize('codec', ['subrip', 'ass', 'webvtt', 'mov_text'])
def test_texts_keep_words_and_times(tmp_path, codec, after):
  source = open_video(make(tmp_path / f'in{TEXTS[codec][0]}', text(codec, text='<i>hi</i> you')), variable_rate=True)
  path = write(source, tmp_path / f'out{after}')
  found = []
  with av.open(str(path)) as container:
    stream = container.streams.subtitles[0]
    for packet in container.demux(stream):
      if packet.size and (shown := stream.codec_context.decode2(packet)):
        said = b' '.join(rect.dialogue for rect in shown)
        found.append((float(packet.pts * packet.time_base), float(packet.duration * packet.time_base), said))
  found = [entry for entry in found if entry[2]]
  assert [time for time, _, _ in found] == pytest.approx([0.02, 0.11], abs=2e-3)
  assert [length for _, length, _ in found] == pytest.approx([0.06, 0.06], abs=2e-3)
  assert all(b'hi' in said and b'you' in said for _, _, said in found)


def test_fonts_and_other_attachments(tmp_path, caplog):
  files = {'font.ttf': ('application/x-truetype-font', b'\x00\x01font'), 'notes.txt': ('text/plain', b'notes')}

  def attach(name):
    return lambda output: (output.add_attachment(name, *files[name]), [])

  source = open_video(make(tmp_path / 'in.mkv', *map(attach, files)), variable_rate=True)
  with av.open(str(write(source, tmp_path / 'out.mkv'))) as container:
    found = {s.name: (s.mimetype, s.data) for s in container.streams if s.type == 'attachment'}
  assert found == files
  assert not caplog.text
  write(source, tmp_path / 'out.mp4')
  assert caplog.text.count('left out') == 1 and caplog.text.count('.mkv could hold it') == 2


def add_cover(output):
  picture = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 99, np.uint8)).reformat(format='yuvj420p')
  encoder = av.CodecContext.create('mjpeg', 'w')
  encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 16, 16, 'yuvj420p', Fraction(1, 25)
  data = bytes(encoder.encode(picture)[0])
  if output.format.name == 'matroska':
    return output.add_attachment('cover.jpg', 'image/jpeg', data), []
  stream = output.add_mux_stream('mjpeg', width=16, height=16)
  stream.disposition = Disposition.attached_pic
  packet = av.Packet(data)
  packet.stream, packet.pts, packet.dts = stream, 0, 0
  return stream, [packet]


@pytest.mark.parametrize('before', ['.mp4', '.mkv'])
@pytest.mark.parametrize('after', SUFFIXES)
def test_cover_pictures(tmp_path, before, after, caplog):
  source = open_video(make(tmp_path / f'in{before}', sound('aac'), add_cover), variable_rate=True)
  assert 'cover picture' in source.other_streams
  path = write(source, tmp_path / f'out{after}')

  def pictures(path):
    with av.open(str(path)) as container:
      covers = [s for s in container.streams.video if s.disposition & Disposition.attached_pic]
      return [bytes(next(container.demux(stream))) for stream in covers]

  if after == '.mov':
    # QuickTime's muxer says yes and writes nothing.
    assert 'cover picture (.mp4 or .mkv could hold it)' in caplog.text and not pictures(path)
  else:
    assert pictures(path) == pictures(source.path) and len(pictures(path)) == 1
  assert open_video(path, variable_rate=True).num_frames == 5


@pytest.mark.parametrize('before', ['.mov', '.mp4', '.mkv'])
@pytest.mark.parametrize('after', SUFFIXES)
def test_timecode(tmp_path, before, after):
  def timed(output):
    output.streams.video[0].metadata['timecode'] = '10:20:30:05'
    return add_sound(output, 'aac')

  source = open_video(make(tmp_path / f'in{before}', timed), variable_rate=True)
  with av.open(str(write(source, tmp_path / f'out{after}'))) as container:
    stated = {name.lower(): text for name, text in container.streams.video[0].metadata.items()}
    assert stated['timecode'] == '10:20:30:05'
    assert [s.type for s in container.streams].count('data') == (after != '.mkv')


def test_drop_frame_timecode(tmp_path):
  path = tmp_path / 'in.mov'
  with av.open(str(path), 'w') as output:
    video, coded = add_video(output, rate=Fraction(30000, 1001))
    video.metadata['timecode'] = '10:20:30;05'
    output.mux(list(coded))
  with av.open(str(write(open_video(path), tmp_path / 'out.mov'))) as container:
    assert container.streams.video[0].metadata['timecode'] == '10:20:30;05'


@pytest.mark.parametrize('after', SUFFIXES)
def test_quicktime_keys_and_other_tags(tmp_path, after):
  tags = {'com.apple.quicktime.make': 'Example', 'com.apple.quicktime.location.ISO6709': '+48+011/', 'title': 'Lake'}
  path = make(tmp_path / 'in.mov', sound('aac'), options={'movflags': 'use_metadata_tags'}, **tags)
  with av.open(str(write(open_video(path, variable_rate=True), tmp_path / f'out{after}'))) as container:
    found = {name.lower(): text for name, text in container.metadata.items()}
  assert {name.lower(): text for name, text in tags.items()}.items() <= found.items()


@pytest.mark.parametrize('after', SUFFIXES)
def test_plain_tags_stay_where_players_look(tmp_path, after):
  path = make(tmp_path / 'in.mp4', sound('aac'), title='Lake', artist='Me')
  assert 'use_metadata_tags' not in streams.plan(open_video(path, variable_rate=True), after).container_options.get(
    'movflags', ''
  )


@pytest.mark.parametrize('suffix', ['.mkv', '.mp4'])
def test_latin_1_titles(tmp_path, suffix):
  path = tmp_path / f'in{suffix}'
  with av.open(str(path), 'w', metadata_encoding='latin-1') as output:
    parts = [add_video(output), with_names(sound('aac'), 'Straße', 'ger', 0)(output)]
    output.metadata['title'] = 'Café'
    for _, packets in parts:
      output.mux(list(packets))
  with pytest.raises(UnicodeDecodeError):
    av.open(str(path))
  path = write(open_video(path, variable_rate=True), tmp_path / 'out.mkv')
  with av.open(str(path)) as container:
    assert container.metadata['title'] == 'Café'
    assert suffix == '.mp4' or container.streams.audio[0].metadata['title'] == 'Straße'


@pytest.mark.parametrize(('codec_id', 'name'), [(b'A_DTS', 'dts'), (b'A_TRUEHD', 'truehd')])
def test_sound_by_its_name_alone(tmp_path, codec_id, name):
  path = make(tmp_path / 'in.mkv', sound('libmp3lame'))
  renamed(codec_id)(path)
  source = open_video(path, variable_rate=True)
  assert name in source.other_streams[0]
  assert packets(write(source, tmp_path / 'out.mkv'), 'audio') == packets(path, 'audio')


def samples(path):
  """How many seconds behind the picture the sound of a file begins, and its samples as int32 (channels, n)."""
  with av.open(str(path)) as container:
    picture = next(container.decode(video=0)).time
  with av.open(str(path)) as container:
    frames = list(container.decode(audio=0))
  each = [frame.to_ndarray().reshape(frame.samples, -1).T.astype(np.int32) for frame in frames]
  whole = np.concatenate(each, axis=1)
  return frames[0].time - picture, whole << 16 if frames[0].format.name == 's16' else whole


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('bits', [16, 24])
@pytest.mark.parametrize(
  ('codec', 'file', 'options'), [('pcm_bluray', 'in.m2ts', {'mpegts_m2ts_mode': '1'}), ('pcm_dvd', 'in.vob', {})]
)
def test_pcm_of_discs_keeps_its_samples(tmp_path, codec, file, options, bits, suffix):
  """No other container holds its packets; the muxer for mov writes their letters, so that nobody could play them."""
  dtype, count = {16: np.int16, 24: np.int32}[bits], 240
  values = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), 40 * 2 * count)
  values = (values << np.iinfo(dtype).bits - bits).astype(dtype)

  def noise(output):
    stream = output.add_stream(codec, rate=48000, layout='stereo', format='s16' if bits == 16 else 's32')
    frames = []
    for k, part in enumerate(np.split(values, 40)):
      frame = av.AudioFrame.from_ndarray(part[None], stream.format.name, 'stereo')
      frame.sample_rate, frame.pts = 48000, count * k
      frames.append(frame)
    return stream, (packet for frame in [*frames, None] for packet in stream.encode(frame))

  source = open_video(make(tmp_path / file, noise, options=options), variable_rate=True)
  assert source.other_streams == (f'audio {codec} 48000 Hz stereo',)
  plan = streams.plan(source, suffix)
  assert plan.how == {1: 'pcm'} and not plan.left_out and plan.kept[0].endswith('48000 Hz stereo (as plain PCM)')
  behind, expected = samples(source.path)
  np.testing.assert_array_equal(
    expected[:, : 40 * count], values.astype(np.int32).reshape(-1, 2).T << (16 if bits == 16 else 0)
  )
  found_behind, found = samples(write(source, tmp_path / f'out{suffix}'))
  np.testing.assert_array_equal(found, expected)
  assert found_behind == pytest.approx(behind, abs=0.01)


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_sound_that_libav_does_not_know_is_left_out_by_name(tmp_path, suffix, caplog):
  """As in iPhone recordings, whose second track is `apac`."""
  path = make(tmp_path / 'in.mp4', sound('ac3'), sound('aac'))
  data = path.read_bytes()
  k = data.rindex(b'mp4a')
  e = data.rindex(b'esds')
  path.write_bytes(data[:k] + b'apac' + data[k + 4 : e] + b'dapa' + data[e + 4 :])
  source = open_video(path, variable_rate=True)
  assert source.other_streams == ('audio ac3 48000 Hz mono', 'audio apac')
  found = open_video(write(source, tmp_path / f'out{suffix}'), variable_rate=True)
  assert found.other_streams == ('audio ac3 48000 Hz mono',)
  assert caplog.text.count('left out') == 1 and 'audio apac (libav does not know it)' in caplog.text


def test_matroska_that_libav_does_not_know(tmp_path, caplog):
  path = make(tmp_path / 'in.mkv', sound('aac'), sound('libmp3lame'))
  renamed(b'A_MPEG/X9')(path)
  source = open_video(path, variable_rate=True)
  assert len(open_video(write(source, tmp_path / 'out.mkv'), variable_rate=True).other_streams) == 1
  assert 'libav does not know it' in caplog.text


@pytest.mark.parametrize('after', SUFFIXES)
def test_second_video(tmp_path, after):
  source = open_video(make(tmp_path / 'in.mkv', add_video), variable_rate=True)
  assert source.other_streams == ('second video',)
  with av.open(str(write(source, tmp_path / f'out{after}'))) as container:
    second = container.streams.video[1]
    assert len([p for p in container.demux(second) if p.size]) == 5


@pytest.mark.parametrize('after', SUFFIXES)
def test_times_that_go_back_are_moved(tmp_path, after):
  path = make(tmp_path / 'in.mkv', sound('pcm_s16le'))
  with av.open(str(path)) as container:
    blocks = [p.pos for p in container.demux(container.streams.audio[0]) if p.size]
  data = bytearray(path.read_bytes())
  # The fourth block begins at the time of its cluster. A block: size, number of the track, 16 bits of time.
  place = data.index(b'\x82', blocks[3]) + 1
  data[place : place + 2] = bytes(2)
  path.write_bytes(data)
  times = [time for _, time in packets(path, 'audio')]
  assert times != sorted(times)
  copied = packets(write(open_video(path, variable_rate=True), tmp_path / f'out{after}'), 'audio')
  assert [data for data, _ in copied] == [data for data, _ in packets(path, 'audio')]
  assert [time for _, time in copied] == sorted(time for _, time in copied)
  assert copied[5][1] == times[5]


def test_the_header_is_written_before_the_first_frame(tmp_path):
  source = open_video(example(tmp_path, 'tta'), variable_rate=True)
  with pytest.raises(errors.VideoError, match=r'tta .* does not fit into .mov; write to .mkv instead'):
    with open_writer(tmp_path / 'out.mov', fps=source.fps, height=32, width=32, source=source):
      pytest.fail('came as far as the frames')


@pytest.mark.parametrize('after', SUFFIXES)
@pytest.mark.parametrize('letters', ['gpmd', 'rtmd', 'camm', 'mebx'])
def test_data_of_cameras_is_copied_or_named(tmp_path, letters, after, caplog):
  """mp4 and mov hold GoPro's; what libavformat writes without a word and nobody can read again is left out as well."""

  def timed(output):
    output.streams.video[0].metadata['timecode'] = '10:20:30:05'
    return add_sound(output, 'aac')

  path = make(tmp_path / 'in.mov', timed)
  path.write_bytes(path.read_bytes().replace(b'tmcd', letters.encode()))
  source = open_video(path, variable_rate=True)
  assert f'data {letters} eng' in source.other_streams
  found = open_video(write(source, tmp_path / f'out{after}'), variable_rate=True)
  if letters == 'gpmd' and after != '.mkv':
    assert found.other_streams == source.other_streams and not caplog.text
  else:
    assert not [stream for stream in found.other_streams if stream.startswith('data')]
    assert caplog.text.count('left out') == 1 and f'data {letters} eng (' in caplog.text


def flash_and_beep(path, codec, sound, at=12):
  """Frame `at` is white, and a tone begins with it."""
  with av.open(str(path), 'w') as output:
    stream = output.add_stream(codec, rate=25, options={'bf': '3', 'b_strategy': '0', 'x264-params': 'b-adapt=0'})
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    track = output.add_stream(sound, rate=48000, layout='mono')
    for t in range(2 * at):
      frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 255 * (t == at), np.uint8)).reformat(format='yuv420p')
      frame.pts = t
      output.mux(stream.encode(frame))
      samples = 8000 * (t >= at) * np.sin(np.arange(1920))[None]
      samples = av.AudioFrame.from_ndarray(samples.astype(np.int16), 's16', 'mono')
      samples.sample_rate, samples.pts = 48000, 1920 * t
      output.mux(track.encode(samples))
    output.mux(stream.encode(None))
    output.mux(track.encode(None))
  return path


def beep_behind_flash(path):
  """Seconds; the frames by our times, the sound by libav's."""
  source = open_video(path)
  white = next(k for k, frame in enumerate(source.frames()) if frame.mean() > 128)
  with av.open(str(path)) as container:
    for frame in container.decode(audio=0):
      loud = np.flatnonzero(
        np.abs(frame.to_ndarray().astype(float)) > 0.05 * (1 if 'flt' in frame.format.name else 32768)
      )
      if len(loud):
        return frame.time + loud[0] / frame.sample_rate - float(source.timestamps[white] * source.time_base)


@pytest.mark.parametrize(
  'before, codec, sound, after',
  [
    # libav shows the frames of AVI later than their chunks say, by the delay of its decoder; the sound comes at once.
    ('a.avi', 'libx264', 'pcm_s16le', 'mkv'),
    ('a.avi', 'mpeg4', 'pcm_s16le', 'mov'),
    # AAC begins before zero, which Matroska cannot say: all of it is later there.
    ('a.mp4', 'libx264', 'aac', 'mkv'),
    ('a.mkv', 'libx264', 'aac', 'mp4'),
  ],
)
def test_sound_and_picture_stay_in_step(tmp_path, before, codec, sound, after):
  path = flash_and_beep(tmp_path / before, codec, sound)
  output = tmp_path / f'out.{after}'
  write(open_video(path), output)
  assert abs(beep_behind_flash(path)) < 0.005
  assert abs(beep_behind_flash(output) - beep_behind_flash(path)) < 0.002
