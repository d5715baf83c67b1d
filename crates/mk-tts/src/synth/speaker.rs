//! The tensors of the speaker encoder, an ECAPA-TDNN.

use mk_model::synth::tensors::{Kind, Tensor};

use super::Spec;

/// Bands of the mel spectrogram that it takes.
const MEL_BANDS: usize = 128;
/// Parts that a Res2Net block splits its channels into.
const RES2NET_SCALE: usize = 8;
const BIAS_STD: f32 = 0.05;

/// All tensors below `speaker_encoder.`.
pub(super) fn tensors(spec: &Spec) -> Vec<Tensor> {
    let shape = spec.speaker;
    let (channels, wide) = (shape.channels, 3 * shape.channels);
    let mut all = Vec::new();
    let mut conv = |name: &str, out: usize, input: usize, kernel: usize| {
        let name = |what: &str| format!("speaker_encoder.{name}.{what}");
        let std = 1.0 / ((input * kernel) as f32).sqrt();
        all.push(Tensor {
            name: name("weight"),
            shape: vec![out, input, kernel],
            kind: Kind::Linear { std },
        });
        let kind = Kind::Linear { std: BIAS_STD };
        all.push(Tensor { name: name("bias"), shape: vec![out], kind });
    };
    conv("blocks.0.conv", channels, MEL_BANDS, 5);
    for block in 1..=3 {
        let mut conv = |name: &str, out, input, kernel| {
            conv(&format!("blocks.{block}.{name}"), out, input, kernel);
        };
        conv("tdnn1.conv", channels, channels, 1);
        let part = channels / RES2NET_SCALE;
        for i in 0..RES2NET_SCALE - 1 {
            conv(&format!("res2net_block.blocks.{i}.conv"), part, part, 3);
        }
        conv("tdnn2.conv", channels, channels, 1);
        conv("se_block.conv1", shape.se_channels, channels, 1);
        conv("se_block.conv2", channels, shape.se_channels, 1);
    }
    conv("mfa.conv", wide, wide, 1);
    conv("asp.tdnn.conv", shape.attention_channels, 3 * wide, 1);
    conv("asp.conv", wide, shape.attention_channels, 1);
    conv("fc", spec.talker.hidden_size, 2 * wide, 1);
    all
}
