//! `speaker_encoder_config` of a Base checkpoint's `config.json`.

use std::path::Path;

use mk_model::Problem;
use serde::Deserialize;

use super::mel;
use crate::config::{checkpoint, read_text};
use crate::error::{Error, Result};

/// Dimensions of the speaker encoder, named as the file names them. What the file leaves out has the reference's
/// defaults (`Qwen3TTSSpeakerEncoderConfig`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SpeakerConfig {
    /// Mel bands that go in.
    pub mel_dim: usize,
    /// Width of the vector that comes out.
    pub enc_dim: usize,
    /// Channels of the first layer, of each block, and of the layer that joins the blocks.
    pub enc_channels: Vec<usize>,
    /// Taps of the same layers.
    pub enc_kernel_sizes: Vec<usize>,
    /// Distances between their taps.
    pub enc_dilations: Vec<usize>,
    /// Channels inside the attention of the pooling.
    pub enc_attention_channels: usize,
    /// Into how many parts the channels of a block are cut.
    pub enc_res2net_scale: usize,
    /// Channels inside the gate of a block.
    pub enc_se_channels: usize,
    /// Samples a second of what goes in.
    pub sample_rate: u32,
}

impl Default for SpeakerConfig {
    fn default() -> Self {
        Self {
            mel_dim: 128,
            enc_dim: 1024,
            enc_channels: vec![512, 512, 512, 512, 1536],
            enc_kernel_sizes: vec![5, 3, 3, 3, 1],
            enc_dilations: vec![1, 2, 3, 4, 1],
            enc_attention_channels: 128,
            enc_res2net_scale: 8,
            enc_se_channels: 128,
            sample_rate: 24_000,
        }
    }
}

/// More layers than any speaker encoder has; bounds the work that a broken file can ask for.
const MAX_LAYERS: usize = 64;
/// Likewise for every other dimension.
const MAX_DIM: usize = 1 << 16;

impl SpeakerConfig {
    /// Reads the `speaker_encoder_config` of `config.json` in `dir`.
    ///
    /// # Errors
    /// [`Error::NoSpeakerEncoder`] where it has none, a file that cannot be read, and all of [`Self::problems`].
    pub fn open(dir: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct File {
            speaker_encoder_config: Option<SpeakerConfig>,
        }
        let text = read_text(&dir.join("config.json"))?;
        let file: File = serde_json::from_str(&text).map_err(|e| {
            let field = "config.json".into();
            checkpoint(dir, vec![Problem::BadField { field, reason: e.to_string() }])
        })?;
        let config = file
            .speaker_encoder_config
            .ok_or_else(|| Error::NoSpeakerEncoder { dir: dir.into() })?;
        match config.problems() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(checkpoint(dir, problems)),
        }
    }

    /// Everything that the reference could not run either, or that the mel spectrogram does not give.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, field: &str, reason: String| {
            if !ok {
                let field = format!("speaker_encoder_config.{field}");
                problems.push(Problem::BadField { field, reason });
            }
        };
        let layers = self.enc_channels.len();
        check(
            (3..=MAX_LAYERS).contains(&layers)
                && self.enc_kernel_sizes.len() == layers
                && self.enc_dilations.len() == layers,
            "enc_channels",
            format!(
                "{layers} channels, {} enc_kernel_sizes and {} enc_dilations: they must be equally many, 3 to \
                 {MAX_LAYERS}",
                self.enc_kernel_sizes.len(),
                self.enc_dilations.len()
            ),
        );
        let lists = [&self.enc_channels, &self.enc_kernel_sizes, &self.enc_dilations];
        let single = [self.enc_dim, self.enc_attention_channels, self.enc_se_channels];
        let sizes = lists.into_iter().flatten().copied().chain(single);
        let in_range = sizes.into_iter().all(|size| (1..=MAX_DIM).contains(&size));
        check(in_range, "*", format!("every size must be from 1 to {MAX_DIM}"));
        if let [first, blocks @ .., last] = self.enc_channels.as_slice() {
            let scale = self.enc_res2net_scale;
            check(
                (2..=MAX_DIM).contains(&scale)
                    && blocks.iter().all(|channels| channels.is_multiple_of(scale)),
                "enc_res2net_scale",
                format!(
                    "{scale} does not cut the blocks' {blocks:?} channels into 2 parts or more"
                ),
            );
            // A block adds its input to its output.
            let width = blocks.first().unwrap_or(first);
            check(
                blocks.iter().all(|channels| channels == first),
                "enc_channels",
                format!("blocks of {blocks:?} channels cannot follow a layer of {first}"),
            );
            let joined = blocks.len().saturating_mul(*width);
            check(
                *last == joined,
                "enc_channels",
                format!("the last is {last}, but the blocks' outputs have {joined} together"),
            );
        }
        let (mel_dim, rate) = (self.mel_dim, self.sample_rate);
        check(mel_dim == mel::BANDS, "mel_dim", format!("{mel_dim}, only {} is known", mel::BANDS));
        let known = mel::SAMPLE_RATE;
        check(rate == known, "sample_rate", format!("{rate}, only {known} is known"));
        problems
    }

    /// The most frames that a layer mirrors at an end: a spectrogram must be longer than that.
    pub(super) fn most_mirrored(&self) -> usize {
        let layers = self.enc_kernel_sizes.iter().zip(&self.enc_dilations);
        layers.map(|(taps, dilation)| ((taps - 1) * dilation).div_ceil(2)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_the_reference_s_defaults() {
        let config: SpeakerConfig = serde_json::from_str(r#"{"enc_dim": 2048}"#).unwrap();
        assert_eq!(config, SpeakerConfig { enc_dim: 2048, ..SpeakerConfig::default() });
        assert_eq!(config.problems(), []);
        assert_eq!(config.most_mirrored(), 4);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let config = SpeakerConfig {
            mel_dim: 80,
            enc_channels: vec![512, 500, 512, 999],
            enc_kernel_sizes: vec![0],
            sample_rate: 16_000,
            ..SpeakerConfig::default()
        };
        let text = config.problems().iter().map(|p| p.to_string()).collect::<Vec<_>>().join("\n");
        for part in ["mel_dim", "1 enc_kernel_sizes", "scale", "cannot follow", "999", "16000", "*"]
        {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn no_layers_at_all_is_a_problem_too() {
        let config = SpeakerConfig {
            enc_channels: Vec::new(),
            enc_kernel_sizes: Vec::new(),
            enc_dilations: Vec::new(),
            ..SpeakerConfig::default()
        };
        assert_eq!(config.problems().len(), 1);
        assert_eq!(config.most_mirrored(), 0);
    }
}
