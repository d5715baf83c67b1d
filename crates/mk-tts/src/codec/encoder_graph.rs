//! Writes the encoder as two ONNX graphs: samples to embeddings, and embeddings to codes.
//!
//! The layers are those of the front half of transformers' `models/mimi/modeling_mimi.py` (4.57.3), which qwen_tts'
//! `Qwen3TTSTokenizerV2Encoder` is. Two graphs, because the convolutions of the first see little of the past and so can
//! be run piece by piece, while the attention of the second sees all of it.
//!
//! The config names a sliding window, but transformers applies it only with flash attention, which needs half
//! precision: in f32 every embedding sees all before it (`create_causal_mask` in `MimiTransformerModel.forward`). So it
//! is here.

use mk_model::Problem;
use mk_model::checkpoint::TensorFiles;

use super::config::{CodecConfig, EncoderConfig};
use super::fold::transpose;
use crate::onnx::{Attribute, Conv, Dim, Edge, Element, GraphBuilder, Model};
use crate::weights::Weights;

/// The code that decides what the graphs are.
pub const CODE: &[&str] = &[include_str!("encoder_graph.rs"), include_str!("fold.rs")];

/// Input of the first graph: samples f32 [1, 1, n].
pub const SAMPLES: &str = "samples";
/// Output of the first and input of the second: f32 [1, hidden_size, ceil(n / hop)].
pub const EMBEDDINGS: &str = "embeddings";
/// Input of the second: cosines of the rotary angles, f32 [embeddings, head_dim / 2].
pub const COSINES: &str = "cosines";
/// Input of the second: their sines.
pub const SINES: &str = "sines";
/// Input of the second, added to the attention's scores: f32 [embeddings, embeddings].
pub const MASK: &str = "mask";
/// Output of the second: codes i64 [frames, groups].
pub const CODES: &str = "codes";

/// Embeddings that become one frame. The reference's code has it, not its config.
pub const EMBEDDINGS_PER_FRAME: usize = 2;
/// A codebook entry's usage is at least this.
const MIN_USAGE: f32 = 1e-5;

/// Samples that become one embedding.
pub fn hop(config: &EncoderConfig) -> usize {
    config.upsampling_ratios.iter().fold(1, |product, ratio| product.saturating_mul(*ratio))
}

/// How many embeddings' worth of samples before its own an embedding depends on.
pub fn context(config: &EncoderConfig) -> usize {
    let mut stride = 1;
    let mut reach = 0;
    for layer in convolutions(config) {
        reach += layer.reach() * stride;
        stride *= layer.stride;
    }
    reach.div_ceil(stride)
}

/// A convolution of the first graph, or what goes around it.
#[derive(Debug, Clone)]
struct Layer {
    /// Of the tensors, without `.weight`.
    name: String,
    inputs: usize,
    outputs: usize,
    taps: usize,
    dilation: usize,
    stride: usize,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Takes what comes, without an activation.
    First,
    /// An ELU before it.
    Plain,
    /// Likewise, and what comes in is kept.
    OpensResidual,
    /// Likewise, and what was kept is added to what comes out.
    ClosesResidual,
}

impl Layer {
    /// How far an output sees back beyond the inputs that are its own; that many zeros come before the first.
    fn reach(&self) -> usize {
        ((self.taps - 1) * self.dilation + 1).saturating_sub(self.stride)
    }
}

/// The convolutions of `MimiEncoder`, in order.
fn convolutions(config: &EncoderConfig) -> Vec<Layer> {
    let mut all = Vec::new();
    let mut index = 0;
    let mut channels = config.num_filters;
    let layer = |name: String, (inputs, outputs): (usize, usize), taps, role| Layer {
        name: format!("encoder.encoder.layers.{name}.conv"),
        inputs,
        outputs,
        taps,
        dilation: 1,
        stride: 1,
        role,
    };
    all.push(layer("0".into(), (1, channels), config.kernel_size, Role::First));
    for ratio in config.upsampling_ratios.iter().rev() {
        let narrow = channels / config.compress;
        for depth in 0..config.num_residual_layers {
            index += 1;
            let dilation = config.dilation_growth_rate.saturating_pow(depth as u32);
            let (open, taps) = (format!("{index}.block.1"), config.residual_kernel_size);
            let open = layer(open, (channels, narrow), taps, Role::OpensResidual);
            all.push(Layer { dilation, ..open });
            let close = format!("{index}.block.3");
            all.push(layer(close, (narrow, channels), 1, Role::ClosesResidual));
        }
        // Activations count as layers.
        index += 2;
        let down = layer(index.to_string(), (channels, 2 * channels), 2 * ratio, Role::Plain);
        all.push(Layer { stride: *ratio, ..down });
        channels *= 2;
    }
    index += 2;
    let (last, taps) = (index.to_string(), config.last_kernel_size);
    all.push(layer(last, (channels, config.hidden_size), taps, Role::Plain));
    all
}

/// The graph from samples to embeddings.
///
/// # Errors
/// Everything that is missing or wrong in the tensors.
pub fn samples_to_embeddings(
    config: &EncoderConfig,
    tensors: &TensorFiles,
) -> Result<Model, Vec<Problem>> {
    let mut net = Net::new("qwen3-tts-codec-encoder-samples", tensors);
    let dims = [Dim::Fixed(1), Dim::Fixed(1), Dim::Any("samples")];
    let mut x = net.g.input(SAMPLES, Element::F32, &dims);
    let mut kept = x;
    for layer in convolutions(config) {
        if layer.role == Role::OpensResidual {
            kept = x;
        }
        if layer.role != Role::First {
            x = net.g.unary("Elu", x);
        }
        let Layer { inputs, outputs, taps, dilation, stride, .. } = layer;
        let weight = net.constant(&format!("{}.weight", layer.name), &[outputs, inputs, taps]);
        let bias = net.constant(&format!("{}.bias", layer.name), &[outputs]);
        // The reference pads the end to a whole number of strides; as many zeros as the longest such end needs give
        // the same outputs, since those that not even one input belongs to are not made.
        let pads = (layer.reach(), stride - 1);
        let conv = Conv { stride, dilation, groups: 1, pads };
        x = net.g.conv(x, weight, Some(bias), conv);
        if layer.role == Role::ClosesResidual {
            x = net.g.add(kept, x);
        }
    }
    let dims = [Dim::Fixed(1), Dim::Fixed(config.hidden_size), Dim::Any("embeddings")];
    net.g.output(x, EMBEDDINGS, Element::F32, &dims);
    net.finish()
}

/// The graph from embeddings to the first codes of each frame, as many as the config says.
///
/// # Errors
/// Everything that is missing or wrong in the tensors.
pub fn embeddings_to_codes(
    config: &CodecConfig,
    tensors: &TensorFiles,
) -> Result<Model, Vec<Problem>> {
    let mut net = Net::new("qwen3-tts-codec-encoder-codes", tensors);
    let (encoder, groups) = (&config.encoder, config.encoder_valid_num_quantizers);
    let t = || Dim::Any("embeddings");
    let dims = [Dim::Fixed(1), Dim::Fixed(encoder.hidden_size), t()];
    let embeddings = net.g.input(EMBEDDINGS, Element::F32, &dims);
    let half = Dim::Fixed(encoder.head_dim / 2);
    let positions = Positions {
        cosines: net.g.input(COSINES, Element::F32, &[t(), half]),
        sines: net.g.input(SINES, Element::F32, &[t(), half]),
        mask: net.g.input(MASK, Element::F32, &[t(), t()]),
    };
    let mut x = net.g.transpose(embeddings, &[0, 2, 1]);
    for layer in 0..encoder.num_hidden_layers {
        x = net.layer(
            &format!("encoder.encoder_transformer.layers.{layer}"),
            x,
            encoder,
            positions,
        );
    }
    let x = net.g.transpose(x, &[0, 2, 1]);
    let frames = net.downsample(x, encoder);
    let semantic = encoder.num_semantic_quantizers.min(groups);
    let mut codes = net.quantize("semantic", frames, encoder, semantic);
    codes.extend(net.quantize("acoustic", frames, encoder, groups - semantic));
    let codes = net.g.concat(&codes, 1);
    net.g.output(codes, CODES, Element::I64, &[Dim::Any("frames"), Dim::Fixed(groups)]);
    net.finish()
}

/// What the attention of every layer takes.
#[derive(Clone, Copy)]
struct Positions {
    cosines: Edge,
    sines: Edge,
    mask: Edge,
}

struct Net<'a> {
    g: GraphBuilder,
    weights: Weights<'a>,
}

impl<'a> Net<'a> {
    fn new(name: &str, tensors: &'a TensorFiles) -> Self {
        Self { g: GraphBuilder::new(name), weights: Weights::new(tensors) }
    }

    fn finish(self) -> Result<Model, Vec<Problem>> {
        let problems = self.weights.into_problems();
        if problems.is_empty() { Ok(self.g.finish()) } else { Err(problems) }
    }

    fn constant(&mut self, name: &str, shape: &[usize]) -> Edge {
        self.weights.constant(&mut self.g, name, shape)
    }

    /// `x` [1, t, inputs] times the transpose of a weight [outputs, inputs], each of whose `heads` equal blocks of rows
    /// is used `repeats` times in a row.
    fn linear(
        &mut self,
        name: &str,
        x: Edge,
        shape: [usize; 2],
        heads: usize,
        repeats: usize,
    ) -> Edge {
        let Some(weight) = self.weights.get(&format!("{name}.weight"), &shape) else {
            return Weights::nothing(&mut self.g);
        };
        let [outputs, inputs] = shape;
        let blocks = weight.chunks_exact(outputs / heads * inputs);
        let repeated: Vec<f32> = blocks
            .flat_map(|block| std::iter::repeat_n(block, repeats).flatten().copied())
            .collect();
        let turned = transpose(&repeated, inputs);
        let weight = self.g.constant(&[inputs, outputs * repeats], &turned);
        self.g.matmul(x, weight)
    }

    fn norm(&mut self, name: &str, x: Edge, config: &EncoderConfig) -> Edge {
        let scale = self.constant(&format!("{name}.weight"), &[config.hidden_size]);
        let shift = self.constant(&format!("{name}.bias"), &[config.hidden_size]);
        self.g.layer_norm(x, scale, shift, config.norm_eps)
    }

    /// `x + scale * y`, the scale one number a channel.
    fn add_scaled(&mut self, name: &str, x: Edge, y: Edge, config: &EncoderConfig) -> Edge {
        let scale = self.constant(&format!("{name}.scale"), &[config.hidden_size]);
        let y = self.g.mul(y, scale);
        self.g.add(x, y)
    }

    /// `MimiTransformerLayer`, on `x` [1, t, hidden].
    fn layer(&mut self, name: &str, x: Edge, config: &EncoderConfig, positions: Positions) -> Edge {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let y = self.norm(&format!("{name}.input_layernorm"), x, config);
        let y = self.attention(&format!("{name}.self_attn"), y, config, positions);
        let x = self.add_scaled(&format!("{name}.self_attn_layer_scale"), x, y, config);
        let y = self.norm(&format!("{name}.post_attention_layernorm"), x, config);
        let y = self.linear(&format!("{name}.mlp.fc1"), y, [inner, hidden], 1, 1);
        let y = self.g.unary("Gelu", y);
        let y = self.linear(&format!("{name}.mlp.fc2"), y, [hidden, inner], 1, 1);
        self.add_scaled(&format!("{name}.mlp_layer_scale"), x, y, config)
    }

    fn attention(
        &mut self,
        name: &str,
        x: Edge,
        config: &EncoderConfig,
        positions: Positions,
    ) -> Edge {
        let (hidden, heads, kv) =
            (config.hidden_size, config.num_attention_heads, config.num_key_value_heads);
        let dim = config.head_dim;
        let mut project = |part: &str, own: usize| {
            let shape = [own * dim, hidden];
            let y = self.linear(&format!("{name}.{part}_proj"), x, shape, own, heads / own);
            let y = self.g.reshape(y, &[1, -1, heads as i64, dim as i64]);
            self.g.transpose(y, &[0, 2, 1, 3])
        };
        let (q, k, v) = (project("q", heads), project("k", kv), project("v", kv));
        let q = self.rotate(q, dim, positions);
        let k = self.rotate(k, dim, positions);
        let k = self.g.transpose(k, &[0, 1, 3, 2]);
        let scores = self.g.matmul(q, k);
        let scale = self.g.scalar((1.0 / (dim as f64).sqrt()) as f32);
        let scores = self.g.mul(scores, scale);
        let scores = self.g.add(scores, positions.mask);
        let weights = self.g.softmax(scores, -1);
        let y = self.g.matmul(weights, v);
        let y = self.g.transpose(y, &[0, 2, 1, 3]);
        let y = self.g.reshape(y, &[1, -1, (heads * dim) as i64]);
        self.linear(&format!("{name}.o_proj"), y, [hidden, heads * dim], 1, 1)
    }

    /// Rotary embedding of `x` [1, heads, t, dim]: element `i` of the first half turns with element `i` of the second.
    fn rotate(&mut self, x: Edge, dim: usize, positions: Positions) -> Edge {
        let half = (dim / 2) as i64;
        let parts = self.g.split(x, 3, &[half, half]);
        let (a, b) = (parts[0], parts[1]);
        let Positions { cosines, sines, .. } = positions;
        let (a_cos, b_sin) = (self.g.mul(a, cosines), self.g.mul(b, sines));
        let (b_cos, a_sin) = (self.g.mul(b, cosines), self.g.mul(a, sines));
        let (a, b) = (self.g.sub(a_cos, b_sin), self.g.add(b_cos, a_sin));
        self.g.concat(&[a, b], 3)
    }

    /// Two embeddings to one frame, [1, hidden, t] to [1, hidden, frames]; the ends are repeated where they are reached
    /// over.
    fn downsample(&mut self, x: Edge, config: &EncoderConfig) -> Edge {
        let per_second = (config.sampling_rate as f64 / hop(config) as f64).ceil();
        let taps = 2 * (per_second / config.frame_rate) as usize;
        let stride = EMBEDDINGS_PER_FRAME;
        let first = self.g.slice(x, 2, 0, 1);
        let last = self.g.slice(x, 2, -1, i64::MAX);
        let mut parts = vec![first; taps.saturating_sub(stride)];
        parts.push(x);
        parts.extend(vec![last; stride - 1]);
        let x = self.g.concat(&parts, 2);
        let hidden = config.hidden_size;
        let weight = self.constant("encoder.downsample.conv.weight", &[hidden, hidden, taps]);
        self.g.conv(x, weight, None, Conv { stride, ..Conv::default() })
    }

    /// Residual vector quantisation of `frames` [1, hidden, frames] with the first `count` books: for each a column
    /// of codes [frames, 1].
    fn quantize(
        &mut self,
        kind: &str,
        frames: Edge,
        config: &EncoderConfig,
        count: usize,
    ) -> Vec<Edge> {
        let name = format!("encoder.quantizer.{kind}_residual_vector_quantizer");
        if count == 0 {
            return Vec::new();
        }
        let (size, dim, hidden) = (config.codebook_size, config.codebook_dim, config.hidden_size);
        let x = if dim == hidden {
            frames
        } else {
            let weight = self.constant(&format!("{name}.input_proj.weight"), &[dim, hidden, 1]);
            self.g.conv(frames, weight, None, Conv::default())
        };
        let x = self.g.transpose(x, &[0, 2, 1]);
        let mut residual = self.g.squeeze(x, &[0]);
        let mut codes = Vec::new();
        for book in 0..count {
            let name = format!("{name}.layers.{book}.codebook");
            let sums = self.weights.get(&format!("{name}.embed_sum"), &[size, dim]);
            let usage = self.weights.get(&format!("{name}.cluster_usage"), &[size]);
            let Some((sums, usage)) = sums.zip(usage) else { continue };
            let (entries, offsets) = entries(&sums, &usage, dim);
            let entries = self.g.constant(&[size, dim], &entries);
            let offsets = self.g.constant(&[size], &offsets);
            // The nearest entry y of x is the one with the largest xy - yy / 2.
            let transposed = vec![("transB", Attribute::Int(1))];
            let nearness = self.g.node("Gemm", &[residual, entries, offsets], transposed);
            let code = self.g.arg_max(nearness, 1);
            codes.push(self.g.unsqueeze(code, &[1]));
            if book + 1 < count {
                let nearest = self.g.gather(entries, code, 0);
                residual = self.g.sub(residual, nearest);
            }
        }
        codes
    }
}

/// The entries of a codebook, which is stored as sums and counts, and of each minus half its square.
fn entries(sums: &[f32], usage: &[f32], dim: usize) -> (Vec<f32>, Vec<f32>) {
    let rows = sums.chunks_exact(dim).zip(usage);
    let entries: Vec<f32> =
        rows.flat_map(|(row, n)| row.iter().map(move |s| s / n.max(MIN_USAGE))).collect();
    let square = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    let offsets = entries.chunks_exact(dim).map(|row| (-square(row) / 2.0) as f32).collect();
    (entries, offsets)
}
