//! The speaker encoder as an ONNX graph: ECAPA-TDNN as `Qwen3TTSSpeakerEncoder` of qwen_tts' `modeling_qwen3_tts.py`
//! has it (<https://arxiv.org/abs/2005.07143>).

use mk_model::Problem;
use mk_model::checkpoint::TensorFiles;

use super::config::SpeakerConfig;
use crate::onnx::{Conv, Dim, Edge, Element, GraphBuilder};
use crate::weights::Weights;

/// Name of the input: a mel spectrogram f32 [1, mel_dim, frames].
pub const INPUT: &str = "mel";
/// Name of the output: the voice, f32 [1, enc_dim, 1].
pub const OUTPUT: &str = "voice";

/// Least variance under the square roots of the pooling.
const MIN_VARIANCE: f32 = 1e-12;

/// Builds the graph from the tensors `speaker_encoder.*`; what is stored as bf16 becomes f32.
///
/// # Errors
/// Everything that is missing or wrong in the tensors.
pub fn build(config: &SpeakerConfig, tensors: &TensorFiles) -> Result<Vec<u8>, Vec<Problem>> {
    let mut net = Net { g: GraphBuilder::new("speaker_encoder"), weights: Weights::new(tensors) };
    net.encoder(config);
    let problems = net.weights.into_problems();
    if problems.is_empty() { Ok(net.g.finish().to_bytes()) } else { Err(problems) }
}

struct Net<'a> {
    g: GraphBuilder,
    weights: Weights<'a>,
}

/// Sizes of a convolution whose output is as long as its input.
#[derive(Clone, Copy)]
struct Shape {
    inputs: usize,
    outputs: usize,
    taps: usize,
    dilation: usize,
}

impl Shape {
    /// One tap: every frame by itself.
    fn pointwise(inputs: usize, outputs: usize) -> Self {
        Self { inputs, outputs, taps: 1, dilation: 1 }
    }
}

impl Net<'_> {
    fn encoder(&mut self, config: &SpeakerConfig) {
        let dims = [Dim::Fixed(1), Dim::Fixed(config.mel_dim), Dim::Any("frames")];
        let mel = self.g.input(INPUT, Element::F32, &dims);
        let layers: Vec<(usize, usize, usize)> = config
            .enc_channels
            .iter()
            .zip(&config.enc_kernel_sizes)
            .zip(&config.enc_dilations)
            .map(|((channels, taps), dilation)| (*channels, *taps, *dilation))
            .collect();
        let [(width, taps, dilation), blocks @ .., (last, last_taps, last_dilation)] = &layers[..]
        else {
            return;
        };
        let shape =
            Shape { inputs: config.mel_dim, outputs: *width, taps: *taps, dilation: *dilation };
        let mut x = self.tdnn("speaker_encoder.blocks.0", mel, shape);
        let mut outputs = Vec::new();
        for (index, (_, taps, dilation)) in blocks.iter().enumerate() {
            let name = format!("speaker_encoder.blocks.{}", index + 1);
            x = self.block(&name, x, config, *taps, *dilation);
            outputs.push(x);
        }
        let joined = self.g.concat(&outputs, 1);
        let shape =
            Shape { inputs: *last, outputs: *last, taps: *last_taps, dilation: *last_dilation };
        let x = self.tdnn("speaker_encoder.mfa", joined, shape);
        let pooled = self.pool("speaker_encoder.asp", x, *last, config.enc_attention_channels);
        let shape = Shape::pointwise(2 * last, config.enc_dim);
        let voice = self.conv("speaker_encoder.fc", pooled, shape);
        let dims = [Dim::Fixed(1), Dim::Fixed(config.enc_dim), Dim::Fixed(1)];
        self.g.output(voice, OUTPUT, Element::F32, &dims);
    }

    /// A convolution over frames that are mirrored at the ends (`padding="same"`, `padding_mode="reflect"`).
    fn conv(&mut self, name: &str, x: Edge, shape: Shape) -> Edge {
        let Shape { inputs, outputs, taps, dilation } = shape;
        let weight = format!("{name}.weight");
        let weight = self.weights.constant(&mut self.g, &weight, &[outputs, inputs, taps]);
        let bias = self.weights.constant(&mut self.g, &format!("{name}.bias"), &[outputs]);
        let mirrored = (taps - 1) * dilation;
        let x = if mirrored == 0 {
            x
        } else {
            // PyTorch puts what is odd at the end.
            let (before, after) = (mirrored / 2, mirrored - mirrored / 2);
            self.g.pad_mirrored(x, &[0, 0, before as i64], &[0, 0, after as i64])
        };
        self.g.conv(x, weight, Some(bias), Conv { dilation, ..Conv::default() })
    }

    fn tdnn(&mut self, name: &str, x: Edge, shape: Shape) -> Edge {
        let y = self.conv(&format!("{name}.conv"), x, shape);
        self.g.unary("Relu", y)
    }

    /// TDNN, Res2Net, TDNN, squeeze and excitation, and the input added.
    fn block(
        &mut self,
        name: &str,
        x: Edge,
        config: &SpeakerConfig,
        taps: usize,
        dilation: usize,
    ) -> Edge {
        let width = config.enc_channels[0];
        let whole = Shape::pointwise(width, width);
        let y = self.tdnn(&format!("{name}.tdnn1"), x, whole);
        let part = width / config.enc_res2net_scale;
        let sizes = vec![part as i64; config.enc_res2net_scale];
        let parts = self.g.split(y, 1, &sizes);
        let shape = Shape { inputs: part, outputs: part, taps, dilation };
        let mut done: Vec<Edge> = Vec::new();
        for (index, input) in parts.into_iter().enumerate() {
            let output = match (index, done.last()) {
                (0, _) | (_, None) => input,
                (_, Some(before)) => {
                    let input = if index == 1 { input } else { self.g.add(input, *before) };
                    self.tdnn(&format!("{name}.res2net_block.blocks.{}", index - 1), input, shape)
                }
            };
            done.push(output);
        }
        let y = self.g.concat(&done, 1);
        let y = self.tdnn(&format!("{name}.tdnn2"), y, whole);
        let gate = self.g.reduce("ReduceMean", y, &[2]);
        let squeezed = config.enc_se_channels;
        let name = format!("{name}.se_block");
        let gate = self.conv(&format!("{name}.conv1"), gate, Shape::pointwise(width, squeezed));
        let gate = self.g.unary("Relu", gate);
        let gate = self.conv(&format!("{name}.conv2"), gate, Shape::pointwise(squeezed, width));
        let gate = self.g.unary("Sigmoid", gate);
        let y = self.g.mul(y, gate);
        self.g.add(y, x)
    }

    /// Attentive statistics pooling: mean and deviation of each channel over time [1, 2 * width, 1], every frame
    /// weighed by an attention that sees the frame and the plain mean and deviation.
    fn pool(&mut self, name: &str, x: Edge, width: usize, attention: usize) -> Edge {
        let mean = self.g.reduce("ReduceMean", x, &[2]);
        let centred = self.g.sub(x, mean);
        let squares = self.g.mul(centred, centred);
        let variance = self.g.reduce("ReduceMean", squares, &[2]);
        let deviation = self.deviation(variance);
        // The reference repeats both over time and joins them to the frames. Mean and deviation have their own columns
        // of the weight instead, and are multiplied once.
        let statistics = self.g.concat(&[mean, deviation], 1);
        let (of_frames, of_statistics, bias) = self.attention_weights(name, width, attention);
        let frames = self.g.conv(x, of_frames, None, Conv::default());
        let statistics = self.g.conv(statistics, of_statistics, Some(bias), Conv::default());
        let y = self.g.add(frames, statistics);
        let y = self.g.unary("Relu", y);
        let y = self.g.unary("Tanh", y);
        let y = self.conv(&format!("{name}.conv"), y, Shape::pointwise(attention, width));
        let weight = self.g.softmax(y, 2);

        let weighted = self.g.mul(weight, x);
        let mean = self.g.reduce("ReduceSum", weighted, &[2]);
        let centred = self.g.sub(x, mean);
        let squares = self.g.mul(centred, centred);
        let weighted = self.g.mul(weight, squares);
        let variance = self.g.reduce("ReduceSum", weighted, &[2]);
        let deviation = self.deviation(variance);
        self.g.concat(&[mean, deviation], 1)
    }

    fn deviation(&mut self, variance: Edge) -> Edge {
        let least = self.g.scalar(MIN_VARIANCE);
        let variance = self.g.node("Max", &[variance, least], Vec::new());
        self.g.unary("Sqrt", variance)
    }

    /// The weight [attention, 3 * width, 1] of the attention's first layer, cut into the columns for the frames and
    /// those for their mean and deviation; and its bias.
    fn attention_weights(
        &mut self,
        name: &str,
        width: usize,
        attention: usize,
    ) -> (Edge, Edge, Edge) {
        let name = format!("{name}.tdnn.conv");
        let bias = self.weights.constant(&mut self.g, &format!("{name}.bias"), &[attention]);
        let shape = [attention, 3 * width, 1];
        let Some(weight) = self.weights.get(&format!("{name}.weight"), &shape) else {
            let nothing = Weights::nothing(&mut self.g);
            return (nothing, nothing, bias);
        };
        let rows = weight.chunks_exact(3 * width);
        let frames: Vec<f32> = rows.clone().flat_map(|row| &row[..width]).copied().collect();
        let statistics: Vec<f32> = rows.flat_map(|row| &row[width..]).copied().collect();
        let frames = self.g.constant(&[attention, width, 1], &frames);
        (frames, self.g.constant(&[attention, 2 * width, 1], &statistics), bias)
    }
}
