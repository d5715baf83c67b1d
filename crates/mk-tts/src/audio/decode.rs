//! From the bytes of a file to mono samples, through symphonia.

use std::fs::File;
use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;

use super::Audio;
use crate::error::{Error, Result};

/// The most sound a file may hold, in seconds; it bounds the memory that a file can ask for.
pub const MAX_SECONDS: u32 = 600;

/// Rates that files are found at: from telephone speech to the best converters.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;

/// Reads a sound file: WAV and other containers of PCM, MP3, FLAC, Ogg Vorbis, AAC and ALAC in MP4.
///
/// Channels are averaged. The container is known by its content; the name's extension only helps.
///
/// # Errors
/// A file that is not there, holds no sound we can decode, is broken, truncated, empty or longer than
/// [`MAX_SECONDS`], or whose samples are not finite.
pub fn read(path: impl AsRef<Path>) -> Result<Audio> {
    let path = path.as_ref();
    let io = |source| Error::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err(io(ErrorKind::IsADirectory.into()));
    }
    let extension = path.extension().and_then(|e| e.to_str());
    decode_source(&path.display().to_string(), Box::new(file), extension)
}

/// Decodes a sound file that lies in memory; `extension`, such as `"mp3"`, may help to know its container.
///
/// # Errors
/// Those of [`read`].
pub fn decode(bytes: &[u8], extension: Option<&str>) -> Result<Audio> {
    decode_source("the audio", Box::new(Cursor::new(bytes)), extension)
}

fn decode_source<'a>(
    name: &str,
    source: Box<dyn MediaSource + 'a>,
    extension: Option<&str>,
) -> Result<Audio> {
    // Symphonia forbids unsafe code, but its arithmetic overflows on some broken headers, which panics in builds that
    // check for it. Nothing that it worked on is used afterwards.
    let decoded = catch_unwind(AssertUnwindSafe(|| probe_and_decode(name, source, extension)));
    let audio = decoded.unwrap_or_else(|_| {
        Err(Error::AudioUnreadable {
            name: name.into(),
            reason: "the decoder gave up on it".into(),
        })
    })?;
    if audio.samples.is_empty() {
        return Err(Error::AudioEmpty { name: name.into() });
    }
    super::finite(name, &audio.samples)?;
    Ok(audio)
}

fn probe_and_decode<'a>(
    name: &str,
    source: Box<dyn MediaSource + 'a>,
    extension: Option<&str>,
) -> Result<Audio> {
    let unreadable =
        |error: Symphonia| Error::AudioUnreadable { name: name.into(), reason: error.to_string() };
    let mut hint = Hint::new();
    if let Some(extension) = extension {
        hint.with_extension(extension);
    }
    let stream = MediaSourceStream::new(source, Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(&hint, stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(unreadable)?;
    decode_track(name, format.as_mut())
}

fn decode_track(name: &str, format: &mut dyn FormatReader) -> Result<Audio> {
    let unreadable = |reason: String| Error::AudioUnreadable { name: name.into(), reason };
    let no_track = || Error::AudioNoTrack { name: name.into() };
    let track = format.default_track(TrackType::Audio).ok_or_else(no_track)?;
    let (track_id, expected) = (track.id, track.num_frames);
    let params = track.codec_params.as_ref().and_then(|p| p.audio()).ok_or_else(no_track)?;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(params, &AudioDecoderOptions::default())
        .map_err(|e| unreadable(e.to_string()))?;

    let mut rate = None;
    let mut samples = Vec::new();
    let mut interleaved: Vec<f32> = Vec::new();
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) if packet.track_id != track_id => continue,
            Ok(Some(packet)) => packet,
            // Another stream follows in the same file; the first is the one that was asked for.
            Ok(None) | Err(Symphonia::ResetRequired) => break,
            Err(Symphonia::IoError(e)) if e.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(unreadable(error.to_string())),
        };
        let buffer = match decoder.decode(&packet) {
            Ok(buffer) => buffer,
            // A stream cut out of a longer one may begin with packets that refer to what is not there.
            Err(Symphonia::DecodeError(_)) if samples.is_empty() => continue,
            Err(error) => return Err(unreadable(error.to_string())),
        };
        let (packet_rate, channels) = (buffer.spec().rate(), buffer.num_planes());
        if !RATES.contains(&packet_rate) {
            return Err(unreadable(format!("a rate of {packet_rate} samples a second")));
        }
        if *rate.get_or_insert(packet_rate) != packet_rate {
            return Err(unreadable("the sample rate changes on the way".into()));
        }
        buffer.copy_to_vec_interleaved(&mut interleaved);
        samples.extend(interleaved.chunks_exact(channels.max(1)).map(mean));
        if samples.len() as u64 > most_samples(packet_rate) {
            return Err(Error::AudioTooLong { name: name.into(), most: MAX_SECONDS });
        }
    }
    let sample_rate = rate.unwrap_or_default();
    let found = samples.len() as u64;
    // A header that promises more than any file may hold was written to a pipe, before the length was known.
    match expected.filter(|expected| *expected <= most_samples(sample_rate)) {
        Some(expected) if found < expected && is_exact(format) => {
            Err(Error::AudioTruncated { name: name.into(), expected, found })
        }
        _ => Ok(Audio { samples, sample_rate }),
    }
}

fn most_samples(rate: u32) -> u64 {
    u64::from(rate) * u64::from(MAX_SECONDS)
}

/// Whether the container's count of frames is one of samples that must be there: others estimate it, or count what
/// the decoder drops.
fn is_exact(format: &dyn FormatReader) -> bool {
    matches!(format.format_info().short_name, "wave" | "aiff" | "flac" | "caf")
}

/// The mean of one sample of each channel, as `numpy.mean` over them gives it.
fn mean(frame: &[f32]) -> f32 {
    match frame {
        [one] => *one,
        _ => (frame.iter().map(|s| f64::from(*s)).sum::<f64>() / frame.len() as f64) as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audio").join(name)
    }

    /// A WAV file in memory, each sample as integers of `bits` or as floats.
    fn wav(channels: u16, rate: u32, bits: u16, samples: &[f32]) -> Vec<u8> {
        let float = bits == 0;
        let bits_per_sample = if float { 32 } else { bits };
        let sample_format =
            if float { hound::SampleFormat::Float } else { hound::SampleFormat::Int };
        let spec = hound::WavSpec { channels, sample_rate: rate, bits_per_sample, sample_format };
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
        for sample in samples {
            match float {
                true => writer.write_sample(*sample).unwrap(),
                false => {
                    let full = (1i64 << (bits - 1)) as f64;
                    writer.write_sample((f64::from(*sample) * full) as i32).unwrap();
                }
            }
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    #[test]
    fn wav_of_every_sample_format_and_channel_count() {
        for bits in [0, 8, 16, 24, 32] {
            for channels in [1u16, 2, 6] {
                let count = 300 * usize::from(channels);
                let samples: Vec<f32> =
                    (0..count).map(|i| ((i * 37) % 200) as f32 / 256.0 - 0.4).collect();
                let audio = decode(&wav(channels, 44_100, bits, &samples), None).unwrap();
                assert_eq!(audio.sample_rate, 44_100);
                let step = if bits == 8 { 1.0 / 128.0 } else { 1e-4 };
                let want: Vec<f32> = samples
                    .chunks(channels.into())
                    .map(|c| c.iter().sum::<f32>() / f32::from(channels))
                    .collect();
                assert_eq!(audio.samples.len(), want.len(), "{bits} bits, {channels} channels");
                for (a, b) in audio.samples.iter().zip(&want) {
                    assert!((a - b).abs() <= step, "{bits} bits, {channels} channels: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn other_containers() {
        // The limits of what each encoder does to a tone; the tone itself is 0.375 after averaging.
        for (name, most) in [
            ("tone.flac", 1e-4),
            ("tone.aiff", 1e-5),
            ("tone.wav", 2e-2),
            ("tone.ogg", 2e-2),
            ("tone.mp3", 2e-2),
        ] {
            let audio = read(file(name)).unwrap();
            assert_eq!((audio.sample_rate, audio.samples.len()), (16_000, 6_400), "{name}");
            for (i, sample) in audio.samples.iter().enumerate().skip(1_000).take(4_000) {
                let angle = std::f64::consts::TAU * 440.0 * i as f64 / 16_000.0;
                let off = f64::from(*sample) - 0.375 * angle.sin();
                assert!(off.abs() < most, "{name}, sample {i}: off by {off}");
            }
        }
    }

    #[test]
    fn a_file_that_is_cut_off_is_an_error_and_a_pipe_s_header_is_not() {
        let whole = wav(2, 24_000, 16, &[0.25; 4_000]);
        let error = decode(&whole[..whole.len() - 1_000], Some("wav")).unwrap_err();
        assert!(
            matches!(error, Error::AudioTruncated { expected: 2_000, found: 1_750, .. }),
            "{error}"
        );
        for unknown in [u32::MAX, 0x7fff_f000] {
            let mut piped = whole.clone();
            piped[4..8].copy_from_slice(&unknown.to_le_bytes());
            piped[40..44].copy_from_slice(&(unknown - 36).to_le_bytes());
            assert_eq!(decode(&piped, None).unwrap().samples.len(), 2_000, "{unknown:x}");
        }
        let flac = std::fs::read(file("tone.flac")).unwrap();
        assert!(decode(&flac[..flac.len() / 2], None).is_err());
    }

    #[test]
    fn what_is_no_sound_is_an_error_that_says_so() {
        let unreadable = |bytes: &[u8]| decode(bytes, Some("wav")).unwrap_err().to_string();
        assert!(unreadable(b"").contains("cannot be read as audio"));
        assert!(unreadable(&[0x20; 5_000]).contains("cannot be read as audio"));
        assert!(unreadable(b"{\"model_type\": \"qwen3_tts\"}").contains("cannot be read as audio"));
        let empty = decode(&wav(1, 24_000, 16, &[]), None).unwrap_err();
        assert!(matches!(empty, Error::AudioEmpty { .. }), "{empty}");
        let nan = decode(&wav(1, 24_000, 0, &[0.0, 0.5, f32::NAN]), None).unwrap_err();
        assert!(matches!(nan, Error::AudioNotFinite { index: 2, .. }), "{nan}");
        let slow = decode(&wav(1, 7, 16, &[0.0; 100]), None).unwrap_err();
        assert!(slow.to_string().contains("7 samples a second"), "{slow}");
        let missing = read(file("no.wav")).unwrap_err();
        assert!(missing.to_string().contains("no.wav"), "{missing}");
        assert!(matches!(read(file("")), Err(Error::Io { .. })));
    }

    #[test]
    fn more_than_the_most_is_refused() {
        let long = wav(1, 1_000, 8, &vec![0.0; 1_000 * MAX_SECONDS as usize + 2_000]);
        assert!(matches!(decode(&long, None), Err(Error::AudioTooLong { .. })));
    }

    proptest! {
        #[test]
        fn broken_files_do_not_panic(
            which in 0usize..6,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            head in any::<bool>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = match which {
                0 => wav(2, 24_000, 16, &[0.25; 400]),
                n => std::fs::read(file(["tone.flac", "tone.ogg", "tone.mp3", "tone.aiff", "tone.wav"][n - 1])).unwrap(),
            };
            let reach = if head { bytes.len().min(80) } else { bytes.len() };
            for (at, value) in changes {
                bytes[at.index(reach)] = value;
            }
            bytes.truncate(bytes.len() - cut.index(bytes.len() / 2));
            let _ = decode(&bytes, None);
        }
    }
}
