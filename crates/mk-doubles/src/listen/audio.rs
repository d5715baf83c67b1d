//! The audio as it comes, cut into ticks.

use crate::listen::timeline::TICKS;

/// How samples are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// 16-bit integers, little endian.
    Linear16,
    /// 32-bit floats, little endian.
    Linear32,
    /// G.711 with µ-law.
    Mulaw,
    /// G.711 with A-law.
    Alaw,
}

impl Encoding {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "linear16" => Some(Self::Linear16),
            "linear32" => Some(Self::Linear32),
            "mulaw" => Some(Self::Mulaw),
            "alaw" => Some(Self::Alaw),
            _ => None,
        }
    }

    /// Bytes of a sample.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Linear16 => 2,
            Self::Linear32 => 4,
            Self::Mulaw | Self::Alaw => 1,
        }
    }

    /// One sample, full scale being 1.
    fn decode(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::Linear16, &[a, b]) => f32::from(i16::from_le_bytes([a, b])) / 32_768.0,
            (Self::Linear32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Self::Mulaw, &[byte]) => mulaw(byte),
            (Self::Alaw, &[byte]) => alaw(byte),
            _ => 0.0,
        }
    }
}

fn mulaw(byte: u8) -> f32 {
    let byte = !byte;
    let magnitude = ((i32::from(byte & 0x0f) << 3) + 0x84) << ((byte & 0x70) >> 4);
    let sample = magnitude - 0x84;
    (if byte & 0x80 == 0 { sample } else { -sample }) as f32 / 32_768.0
}

fn alaw(byte: u8) -> f32 {
    let byte = byte ^ 0x55;
    let mantissa = i32::from(byte & 0x0f) << 4;
    let sample = match (byte & 0x70) >> 4 {
        0 => mantissa + 8,
        exponent => (mantissa + 0x108) << (exponent - 1),
    };
    (if byte & 0x80 == 0 { -sample } else { sample }) as f32 / 32_768.0
}

/// Measures the first channel, tick by tick.
#[derive(Debug)]
pub(crate) struct Meter {
    encoding: Encoding,
    channels: usize,
    sample_rate: u32,
    /// Samples received, and the end of the tick in progress.
    samples: u64,
    ticks: u64,
    energy: f64,
    in_tick: u32,
}

impl Meter {
    pub(crate) fn new(encoding: Encoding, sample_rate: u32, channels: u32) -> Self {
        let (samples, ticks, energy, in_tick) = (0, 0, 0.0, 0);
        let channels = channels.max(1) as usize;
        Self { encoding, channels, sample_rate, samples, ticks, energy, in_tick }
    }

    /// Bytes of a sample in all channels, of which a message holds a multiple.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.encoding.bytes() * self.channels
    }

    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// Seconds received.
    pub(crate) fn seconds(&self) -> f64 {
        self.samples as f64 / f64::from(self.sample_rate)
    }

    /// Takes audio and gives the ticks that it completes: their end in seconds, and their root mean square.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<(f64, f32)> {
        let mut ticks = Vec::new();
        let size = self.encoding.bytes();
        for frame in bytes.chunks_exact(self.frame_bytes()) {
            let sample = f64::from(self.encoding.decode(&frame[..size]));
            self.energy += sample * sample;
            self.samples += 1;
            self.in_tick += 1;
            // Ends of ticks are rounded to samples, so that they do not drift at any rate.
            let end = (self.ticks + 1) * u64::from(self.sample_rate) / u64::from(TICKS);
            if self.samples >= end {
                self.ticks += 1;
                let rms = (self.energy / f64::from(self.in_tick)).sqrt() as f32;
                ticks.push((self.ticks as f64 / f64::from(TICKS), rms));
                (self.energy, self.in_tick) = (0.0, 0);
            }
        }
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_do_not_depend_on_how_audio_is_cut() {
        let bytes: Vec<u8> = (0..44_100u32).flat_map(|i| (i as i16).to_le_bytes()).collect();
        let mut whole = Meter::new(Encoding::Linear16, 44_100, 1);
        let ticks = whole.take(&bytes);
        assert_eq!(ticks.len(), 100);
        assert_eq!(ticks[99].0, 1.0);
        let mut pieces = Meter::new(Encoding::Linear16, 44_100, 1);
        let cut: Vec<_> = bytes.chunks(646).flat_map(|piece| pieces.take(piece)).collect();
        assert_eq!(cut, ticks);
    }

    #[test]
    fn g711_is_decoded_to_its_scale() {
        assert_eq!(mulaw(0xff), 0.0);
        assert!((mulaw(0x80) - 0.98).abs() < 0.01, "{}", mulaw(0x80));
        assert!((mulaw(0x00) + 0.98).abs() < 0.01, "{}", mulaw(0x00));
        assert!(alaw(0xd5).abs() < 0.001 && alaw(0x55).abs() < 0.001);
        assert!((alaw(0xaa) - 0.98).abs() < 0.02, "{}", alaw(0xaa));
    }
}
