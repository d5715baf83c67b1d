//! Writes the decoder as one stateful ONNX graph: any number of frames a call, exact causal streaming.
//!
//! The layers are those of `Qwen3TTSTokenizerV2Decoder` (`modeling_qwen3_tts_tokenizer_v2.py` in the package
//! qwen-tts 0.1.1). Everything in it is causal, so that a stream needs of its past only what the layers reach back to:
//! the last columns that entered each convolution, and the last `sliding_window - 1` keys and values of each
//! attention layer. A call takes this state and returns the next.
//!
//! What follows from the weights alone is done when the graph is written: codebooks are divided by their usage; the
//! quantiser's output projections, the first convolution and the transformer's input projection are one convolution;
//! gains of norms, layer scales and ConvNeXt's gammas are in the matrices beside them; frequencies of snakes that follow
//! a convolution are in its weights.

use std::collections::{BTreeMap, BTreeSet};

use mk_model::Problem;
use mk_model::checkpoint::TensorFiles;

use super::config::DecoderConfig;
use super::fold::{narrow, product, scale_columns, scale_rows, transpose, wide};
use crate::onnx::{Conv, Dim, Edge, Element, GraphBuilder, Model};

/// The code that decides what the graph is.
pub const CODE: &[&str] = &[include_str!("decoder_graph.rs"), include_str!("fold.rs")];

/// The transformer is given this many rows more than there are frames, which leave no trace. Engines multiply a single row
/// by other kernels than several; with at least two, results do not depend on how frames are spread over calls.
pub const EXTRA_ROWS: usize = 1;

/// Codes, i64 [1, frames, groups].
pub const CODES: &str = "codes";
/// Cosines and sines of the frames' rotary angles, f32 [frames + EXTRA_ROWS, head_dim / 2] each.
pub const COS: &str = "cos";
/// See [`COS`].
pub const SIN: &str = "sin";
/// What is added to the scores of attention, f32 [frames + EXTRA_ROWS, sliding_window - 1 + frames]: 0 where the frame sees that
/// place, [`HIDDEN`] where it does not.
pub const MASK: &str = "mask";
/// Low enough that the weight is zero.
pub const HIDDEN: f32 = -1e30;
/// Samples, f32 [1, frames * samples per frame]. Not limited to -1..=1 yet: engines do that to what is not a number too,
/// which then could not be told any more.
pub const WAVE: &str = "wave";

/// Taps of the first convolution, of the depthwise ones and those of the convolutional decoder, and distances between the
/// taps of a block's three residual units. The reference's code has them, not its config.
const PRE_CONV_TAPS: usize = 3;
const TAPS: usize = 7;
const DILATIONS: [usize; 3] = [1, 3, 9];
/// Added to the variance in ConvNeXt's LayerNorm, to the usage of a code's entry at the least, and to a snake's amplitude.
const LAYER_NORM_EPS: f32 = 1e-6;
const MIN_USAGE: f32 = 1e-5;
const SNAKE_EPS: f64 = 1e-9;

/// A place along a state and what a call adds to it, as an input of the graph, i64 \[1\]: `frames that count * per_frame + after`.
/// Frames behind those that count only fill a call up: nothing of them is in the next state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound {
    /// Rows or columns of a frame there.
    pub per_frame: usize,
    /// Rows or columns behind it.
    pub after: usize,
}

impl Bound {
    /// Name of the graph's input.
    pub fn input(&self) -> String {
        format!("bound.{}.{}", self.per_frame, self.after)
    }
}

/// Where the states of the next call begin and end, each place once.
pub fn bounds(config: &DecoderConfig) -> Vec<Bound> {
    let all: BTreeSet<Bound> = state(config).iter().flat_map(StateTensor::bounds).collect();
    all.into_iter().collect()
}

/// One tensor of what a stream carries from call to call; all zeros at its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateTensor {
    /// Name of the graph's input.
    pub input: String,
    /// Name of the graph's output that is the input of the next call.
    pub output: String,
    /// Shape, the same in every call.
    pub shape: Vec<usize>,
    /// The dimension along which time goes.
    axis: usize,
    /// Rows or columns along it that a frame adds.
    per_frame: usize,
}

impl StateTensor {
    /// Where the next call's begins and ends in this call's and what the call adds.
    fn bounds(&self) -> [Bound; 2] {
        [0, self.shape[self.axis]].map(|after| Bound { per_frame: self.per_frame, after })
    }
}

/// All the state of a stream, in a fixed order.
pub fn state(config: &DecoderConfig) -> Vec<StateTensor> {
    let mut all = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, axis: usize, per_frame: usize| {
        let (input, output) = (format!("{name}.past"), format!("{name}.next"));
        all.push(StateTensor { input, output, shape, axis, per_frame });
    };
    add("pre_conv".into(), vec![1, PRE_CONV_TAPS - 1, config.codebook_dim], 1, 1);
    let cache = |width| vec![1, config.num_key_value_heads, config.sliding_window - 1, width];
    for layer in 0..config.num_hidden_layers {
        add(format!("layer.{layer}.keys"), cache(config.head_dim), 2, 1);
        add(format!("layer.{layer}.values"), cache(config.head_dim + 1), 2, 1);
    }
    let mut columns = 1;
    for (i, ratio) in config.upsampling_ratios.iter().enumerate() {
        columns *= ratio;
        add(format!("upsample.{i}"), vec![1, config.latent_dim, 1, TAPS - 1], 3, columns);
    }
    add("decoder.0".into(), vec![1, config.latent_dim, 1, TAPS - 1], 3, columns);
    let mut channels = config.decoder_dim;
    for (i, rate) in config.upsample_rates.iter().enumerate() {
        let block = i + 1;
        add(format!("decoder.{block}.up"), vec![1, channels, 1, 1], 3, columns);
        channels /= 2;
        columns *= rate;
        for (unit, dilation) in DILATIONS.iter().enumerate() {
            let shape = vec![1, channels, 1, (TAPS - 1) * dilation];
            add(format!("decoder.{block}.{unit}"), shape, 3, columns);
        }
    }
    add("out".into(), vec![1, channels, 1, TAPS - 1], 3, columns);
    // A window of one position keeps nothing, and tensors without elements are not to every engine's taste.
    all.retain(|tensor| !tensor.shape.contains(&0));
    all
}

/// The graph of the decoder in `tensors`, whose names begin with `decoder.`.
///
/// # Errors
/// Everything that does not fit `config`: tensors missing or of other shapes, numbers that are not finite.
pub fn build(config: &DecoderConfig, tensors: &TensorFiles) -> Result<Model, Vec<Problem>> {
    let mut graph = Builder {
        config,
        weights: Weights { tensors, problems: Vec::new() },
        g: GraphBuilder::new("qwen3-tts-codec-decoder"),
        past: BTreeMap::new(),
        bounds: BTreeMap::new(),
    };
    graph.whole();
    if graph.weights.problems.is_empty() {
        Ok(graph.g.finish())
    } else {
        Err(graph.weights.problems)
    }
}

/// The checkpoint's tensors, and what is wrong with those that were asked for.
struct Weights<'a> {
    tensors: &'a TensorFiles,
    problems: Vec<Problem>,
}

impl Weights<'_> {
    /// The numbers of `decoder.{name}`, or zeros where there is a problem with it.
    fn get(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        let name = format!("decoder.{name}");
        let size = shape.iter().product();
        let problem = match self.tensors.get(&name) {
            None => Problem::MissingTensor { name, expected: shape.into() },
            Some(tensor) if tensor.shape() != shape => {
                Problem::WrongShape { name, expected: shape.into(), found: tensor.shape().into() }
            }
            Some(tensor) => {
                let values = tensor.to_f32();
                match values.iter().position(|value| !value.is_finite()) {
                    Some(index) => Problem::NotFinite { name, index },
                    None => return values,
                }
            }
        };
        self.problems.push(problem);
        vec![0.0; size]
    }

    fn wide(&mut self, name: &str, shape: &[usize]) -> Vec<f64> {
        wide(&self.get(name, shape))
    }

    /// A codebook's entries [size, width]: sums divided by usages.
    fn codebook(&mut self, name: &str, size: usize, width: usize) -> Vec<f32> {
        let mut entries = self.get(&format!("{name}.embedding_sum"), &[size, width]);
        let usage = self.get(&format!("{name}.cluster_usage"), &[size]);
        // The reference divides in f32.
        for (entry, usage) in entries.chunks_exact_mut(width).zip(usage) {
            entry.iter_mut().for_each(|value| *value /= usage.max(MIN_USAGE));
        }
        entries
    }

    /// Frequency and inverse amplitude of each channel of a snake: x + sin(x * frequency)^2 * inverse amplitude.
    fn snake(&mut self, name: &str, channels: usize) -> (Vec<f64>, Vec<f64>) {
        let mut exp = |what: &str| -> Vec<f64> {
            self.wide(&format!("{name}.{what}"), &[channels]).into_iter().map(f64::exp).collect()
        };
        let (frequency, amplitude) = (exp("alpha"), exp("beta"));
        (frequency, amplitude.into_iter().map(|b| 1.0 / (b + SNAKE_EPS)).collect())
    }
}

struct Builder<'a> {
    config: &'a DecoderConfig,
    weights: Weights<'a>,
    g: GraphBuilder,
    /// The state's inputs that have not been used yet, with their shapes.
    past: BTreeMap<String, (Edge, StateTensor)>,
    bounds: BTreeMap<Bound, Edge>,
}

impl Builder<'_> {
    fn whole(&mut self) {
        let frames = Dim::Any("frames");
        let groups = Dim::Fixed(self.config.num_quantizers);
        let codes = self.g.input(CODES, Element::I64, &[Dim::Fixed(1), frames, groups]);
        let (rows, half) = (Dim::Any("rows"), Dim::Fixed(self.config.head_dim / 2));
        let shared = AttentionInputs {
            cos: self.g.input(COS, Element::F32, &[rows, half]),
            sin: self.g.input(SIN, Element::F32, &[rows, half]),
            mask: self.g.input(MASK, Element::F32, &[rows, Dim::Any("places")]),
        };
        for bound in bounds(self.config) {
            let edge = self.g.input(&bound.input(), Element::I64, &[Dim::Fixed(1)]);
            self.bounds.insert(bound, edge);
        }
        for tensor in state(self.config) {
            let dims: Vec<Dim<'_>> = tensor.shape.iter().copied().map(Dim::Fixed).collect();
            let edge = self.g.input(&tensor.input, Element::F32, &dims);
            self.past.insert(tensor.input.clone(), (edge, tensor));
        }
        let x = self.quantizer(codes);
        let x = self.transformer(x, &shared);
        let x = self.upsample(x);
        let x = self.convolutions(x);
        let wave = self.g.squeeze(x, &[1, 2]);
        self.g.output(wave, WAVE, Element::F32, &[Dim::Fixed(1), Dim::Any("samples")]);
    }

    /// What came before `x`, and `x`; the end of both, but for padding, is what comes before the next call.
    fn with_past(&mut self, name: &str, x: Edge) -> Edge {
        let Some((past, tensor)) = self.past.remove(&format!("{name}.past")) else { return x };
        let axis = tensor.axis as i64;
        let both = self.g.concat(&[past, x], axis);
        let [start, end] = tensor.bounds().map(|bound| self.bounds[&bound]);
        let next = self.g.slice_between(both, axis, start, end);
        let dims: Vec<Dim<'_>> = tensor.shape.iter().copied().map(Dim::Fixed).collect();
        self.g.output(next, &tensor.output, Element::F32, &dims);
        both
    }

    /// [1, time, channels] to [1, channels, 1, time].
    fn columns(&mut self, x: Edge) -> Edge {
        let x = self.g.transpose(x, &[0, 2, 1]);
        self.g.unsqueeze(x, &[2])
    }

    /// [1, channels, 1, time] to [1, time, channels].
    fn rows(&mut self, x: Edge) -> Edge {
        let x = self.g.squeeze(x, &[2]);
        self.g.transpose(x, &[0, 2, 1])
    }

    /// [1, frames, groups] codes to [1, frames + EXTRA_ROWS, hidden] rows: codebooks, output projections, `pre_conv`, `input_proj`.
    fn quantizer(&mut self, codes: Edge) -> Edge {
        let (size, dim) = (self.config.codebook_size, self.config.codebook_dim);
        let (width, acoustic) = (dim / 2, self.config.num_quantizers - 1);

        let semantic =
            self.weights.codebook("quantizer.rvq_first.vq.layers.0._codebook", size, width);
        let semantic = self.g.constant(&[size, width], &semantic);
        let code = self.g.slice(codes, 2, 0, 1);
        let code = self.g.squeeze(code, &[2]);
        let first = self.g.gather(semantic, code, 0);

        let books: Vec<f32> = (0..acoustic)
            .flat_map(|i| {
                let name = format!("quantizer.rvq_rest.vq.layers.{i}._codebook");
                self.weights.codebook(&name, size, width)
            })
            .collect();
        let books = self.g.constant(&[acoustic * size, width], &books);
        let offsets: Vec<i64> = (0..acoustic).map(|i| (i * size) as i64).collect();
        let offsets = self.g.integers(&[acoustic], &offsets);
        let code = self.g.slice(codes, 2, 1, i64::MAX);
        let code = self.g.add(code, offsets);
        let entries = self.g.gather(books, code, 0);
        // Added up one after another, as the reference does: the order of an engine's sum depends on the number of frames.
        let entries = self.g.split(entries, 2, &vec![1; acoustic]);
        let rest = entries[1..].iter().fold(entries[0], |sum, &entry| self.g.add(sum, entry));
        let rest = self.g.squeeze(rest, &[2]);

        let x = self.g.concat(&[first, rest], 2);
        // A convolution as one product, of the rows that its taps see beside each other.
        let x = self.with_past("pre_conv", x);
        let extra = self.g.constant(&[1, EXTRA_ROWS, dim], &vec![0.0; EXTRA_ROWS * dim]);
        let x = self.g.concat(&[x, extra], 1);
        let taps: Vec<Edge> = (1..=PRE_CONV_TAPS as i64)
            .map(|tap| {
                let after = PRE_CONV_TAPS as i64 - tap;
                self.g.slice(x, 1, tap - 1, if after == 0 { i64::MAX } else { -after })
            })
            .collect();
        let x = self.g.concat(&taps, 2);
        let (weight, bias) = self.pre_conv();
        let x = self.g.matmul(x, weight);
        self.g.add(x, bias)
    }

    /// `input_proj` after `pre_conv` after the two output projections, as one convolution of both quantisers' vectors.
    fn pre_conv(&mut self) -> (Edge, Edge) {
        let config = self.config;
        let (dim, latent, hidden) = (config.codebook_dim, config.latent_dim, config.hidden_size);
        let width = dim / 2;
        // [dim, 2 * width]: beside each other.
        let mut project = |part: &str| {
            let name = format!("quantizer.{part}.output_proj.weight");
            self.weights.wide(&name, &[dim, width, 1])
        };
        let (first, rest) = (project("rvq_first"), project("rvq_rest"));
        let rows = first.chunks_exact(width).zip(rest.chunks_exact(width));
        let project: Vec<f64> = rows.flat_map(|(a, b)| [a, b].concat()).collect();

        let conv = self.weights.wide("pre_conv.conv.weight", &[latent, dim, PRE_CONV_TAPS]);
        let conv_bias = self.weights.wide("pre_conv.conv.bias", &[latent]);
        let input = self.weights.wide("pre_transformer.input_proj.weight", &[hidden, latent]);
        let input_bias = self.weights.wide("pre_transformer.input_proj.bias", &[hidden]);

        let taps: Vec<Vec<f64>> = (0..PRE_CONV_TAPS)
            .map(|tap| {
                let conv: Vec<f64> =
                    conv.iter().skip(tap).step_by(PRE_CONV_TAPS).copied().collect();
                product(&product(&input, &conv, latent, dim), &project, dim, 2 * width)
            })
            .collect();
        let weight: Vec<f64> = taps.iter().flat_map(|tap| transpose(tap, 2 * width)).collect();
        let bias = product(&input, &conv_bias, latent, 1);
        let bias: Vec<f64> = bias.iter().zip(&input_bias).map(|(a, b)| a + b).collect();
        let weight = self.g.constant(&[PRE_CONV_TAPS * 2 * width, hidden], &narrow(&weight));
        (weight, self.g.constant(&[hidden], &narrow(&bias)))
    }

    /// `x` [.., in] times a weight [out, in] whose columns are first scaled by `gain`, and its rows by `scale`.
    fn linear(
        &mut self,
        x: Edge,
        mut weight: Vec<f32>,
        inputs: usize,
        gain: Option<&[f64]>,
        scale: Option<&[f64]>,
    ) -> Edge {
        if let Some(gain) = gain {
            scale_columns(&mut weight, gain);
        }
        if let Some(scale) = scale {
            scale_rows(&mut weight, scale);
        }
        let outputs = weight.len() / inputs;
        let weight = self.g.constant(&[inputs, outputs], &transpose(&weight, inputs));
        self.g.matmul(x, weight)
    }

    /// [1, frames + EXTRA_ROWS, hidden] to [1, frames + EXTRA_ROWS, latent].
    fn transformer(&mut self, x: Edge, shared: &AttentionInputs) -> Edge {
        let config = self.config;
        let mut x = x;
        for layer in 0..config.num_hidden_layers {
            x = self.attention(x, layer, shared);
            x = self.feed_forward(x, layer);
        }
        let (hidden, latent) = (config.hidden_size, config.latent_dim);
        let x = self.rms_norm(x);
        let gain = self.weights.wide("pre_transformer.norm.weight", &[hidden]);
        let weight = self.weights.get("pre_transformer.output_proj.weight", &[latent, hidden]);
        let x = self.linear(x, weight, hidden, Some(&gain), None);
        let bias = self.weights.get("pre_transformer.output_proj.bias", &[latent]);
        let bias = self.g.constant(&[latent], &bias);
        self.g.add(x, bias)
    }

    /// RMSNorm but for its gain.
    fn rms_norm(&mut self, x: Edge) -> Edge {
        let square = self.g.mul(x, x);
        let mean = self.g.reduce("ReduceMean", square, &[2]);
        let eps = self.g.scalar(self.config.rms_norm_eps);
        let mean = self.g.add(mean, eps);
        let root = self.g.unary("Sqrt", mean);
        self.g.div(x, root)
    }

    fn attention(&mut self, x: Edge, layer: usize, shared: &AttentionInputs) -> Edge {
        let config = self.config;
        let (hidden, width) = (config.hidden_size, config.head_dim);
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let name = format!("pre_transformer.layers.{layer}");
        let normed = self.rms_norm(x);
        let gain = self.weights.wide(&format!("{name}.input_layernorm.weight"), &[hidden]);
        let mut project = |part: &str, heads: usize| {
            let name = format!("{name}.self_attn.{part}.weight");
            self.weights.get(&name, &[heads * width, hidden])
        };
        let mut all = project("q_proj", heads);
        let root = 1.0 / (width as f64).sqrt();
        scale_rows(&mut all, &[root]);
        all.extend(project("k_proj", kv_heads));
        all.extend(project("v_proj", kv_heads));
        let all = self.linear(normed, all, hidden, Some(&gain), None);

        let (q, kv) = ((heads * width) as i64, (kv_heads * width) as i64);
        let parts = self.g.split(all, 2, &[q, kv, kv]);
        let mut by_head = |x: Edge, heads: usize| {
            let x = self.g.reshape(x, &[0, 0, heads as i64, width as i64]);
            self.g.transpose(x, &[0, 2, 1, 3])
        };
        let queries = by_head(parts[0], heads);
        let (keys, values) = (by_head(parts[1], kv_heads), by_head(parts[2], kv_heads));
        let queries = self.rotate(queries, shared);
        let keys = self.rotate(keys, shared);
        let keys = self.g.slice(keys, 2, 0, -(EXTRA_ROWS as i64));
        let values = self.g.slice(values, 2, 0, -(EXTRA_ROWS as i64));
        let keys = self.with_past(&format!("layer.{layer}.keys"), keys);
        let values = self.with_ones(values);
        let values = self.with_past(&format!("layer.{layer}.values"), values);
        let (keys, values) = (self.repeat(keys), self.repeat(values));
        let keys = self.g.transpose(keys, &[0, 1, 3, 2]);
        let scores = self.g.matmul(queries, keys);
        let scores = self.g.add(scores, shared.mask);
        // Softmax, whose sum is taken by the product, beside a value that is always 1: its order then does not depend on
        // where in the call a frame is, so that calls of any length give the same.
        let highest = self.g.reduce("ReduceMax", scores, &[3]);
        let scores = self.g.sub(scores, highest);
        let weights = self.g.unary("Exp", scores);
        let mixed = self.g.matmul(weights, values);
        let parts = self.g.split(mixed, 3, &[width as i64, 1]);
        let mixed = self.g.div(parts[0], parts[1]);
        let mixed = self.g.transpose(mixed, &[0, 2, 1, 3]);
        let mixed = self.g.reshape(mixed, &[0, 0, q]);

        let weight =
            self.weights.get(&format!("{name}.self_attn.o_proj.weight"), &[hidden, heads * width]);
        let scale = self.weights.wide(&format!("{name}.self_attn_layer_scale.scale"), &[hidden]);
        let out = self.linear(mixed, weight, heads * width, None, Some(&scale));
        self.g.add(x, out)
    }

    /// `x` [1, heads, frames, width] with a 1 behind each row.
    fn with_ones(&mut self, x: Edge) -> Edge {
        let amounts = self.g.integers(&[8], &[0, 0, 0, 0, 0, 0, 0, 1]);
        let one = self.g.scalar(1.0);
        self.g.node("Pad", &[x, amounts, one], Vec::new())
    }

    /// Each key-value head as often as there are query heads that share it.
    fn repeat(&mut self, x: Edge) -> Edge {
        let (heads, kv_heads) = (self.config.num_attention_heads, self.config.num_key_value_heads);
        if heads == kv_heads {
            return x;
        }
        let indices: Vec<i64> = (0..heads).map(|head| (head * kv_heads / heads) as i64).collect();
        let indices = self.g.integers(&[heads], &indices);
        self.g.gather(x, indices, 1)
    }

    /// Rotary embedding with the halves of a head as pairs.
    fn rotate(&mut self, x: Edge, &AttentionInputs { cos, sin, .. }: &AttentionInputs) -> Edge {
        let half = self.config.head_dim as i64 / 2;
        let halves = self.g.split(x, 3, &[half, half]);
        let g = &mut self.g;
        let (a, b) = (g.mul(halves[0], cos), g.mul(halves[1], sin));
        let first = g.sub(a, b);
        let (a, b) = (g.mul(halves[1], cos), g.mul(halves[0], sin));
        let second = g.add(a, b);
        g.concat(&[first, second], 3)
    }

    fn feed_forward(&mut self, x: Edge, layer: usize) -> Edge {
        let (hidden, inter) = (self.config.hidden_size, self.config.intermediate_size);
        let name = format!("pre_transformer.layers.{layer}");
        let normed = self.rms_norm(x);
        let gain = self.weights.wide(&format!("{name}.post_attention_layernorm.weight"), &[hidden]);
        let mut both = self.weights.get(&format!("{name}.mlp.gate_proj.weight"), &[inter, hidden]);
        both.extend(self.weights.get(&format!("{name}.mlp.up_proj.weight"), &[inter, hidden]));
        let both = self.linear(normed, both, hidden, Some(&gain), None);
        let parts = self.g.split(both, 2, &[inter as i64; 2]);
        let sigmoid = self.g.unary("Sigmoid", parts[0]);
        let gate = self.g.mul(parts[0], sigmoid);
        let product = self.g.mul(gate, parts[1]);
        let weight = self.weights.get(&format!("{name}.mlp.down_proj.weight"), &[hidden, inter]);
        let scale = self.weights.wide(&format!("{name}.mlp_layer_scale.scale"), &[hidden]);
        let out = self.linear(product, weight, inter, None, Some(&scale));
        self.g.add(x, out)
    }

    /// [1, frames + EXTRA_ROWS, latent] to [1, latent, 1, frames * ratios].
    fn upsample(&mut self, mut x: Edge) -> Edge {
        let latent = self.config.latent_dim;
        for (i, &ratio) in self.config.upsampling_ratios.iter().enumerate() {
            // A transposed convolution whose taps do not overlap: each row becomes `ratio` rows.
            let name = format!("upsample.{i}.0.conv");
            let weight = self.weights.get(&format!("{name}.weight"), &[latent, latent, ratio]);
            let by_tap: Vec<f32> = weight
                .chunks_exact(latent * ratio)
                .flat_map(|input| transpose(input, ratio))
                .collect();
            let weight = self.g.constant(&[latent, ratio * latent], &by_tap);
            let bias = self.weights.get(&format!("{name}.bias"), &[latent]);
            let bias = self.g.constant(&[ratio * latent], &bias.repeat(ratio));
            let rows = self.g.matmul(x, weight);
            let rows = self.g.add(rows, bias);
            let mut rows = self.g.reshape(rows, &[0, -1, latent as i64]);
            if i == 0 {
                rows = self.g.slice(rows, 1, 0, -((EXTRA_ROWS * ratio) as i64));
            }
            x = self.conv_next(rows, i);
        }
        self.columns(x)
    }

    /// A ConvNeXt block on [1, time, latent].
    fn conv_next(&mut self, x: Edge, i: usize) -> Edge {
        let latent = self.config.latent_dim;
        let name = format!("upsample.{i}.1");
        let columns = self.columns(x);
        let columns = self.with_past(&format!("upsample.{i}"), columns);
        let weight = self.weights.get(&format!("{name}.dwconv.conv.weight"), &[latent, 1, TAPS]);
        let weight = self.g.constant(&[latent, 1, 1, TAPS], &weight);
        let bias = self.weights.get(&format!("{name}.dwconv.conv.bias"), &[latent]);
        let bias = self.g.constant(&[latent], &bias);
        let depthwise = Conv { groups: latent, ..Conv::default() };
        let y = self.g.flat_conv(columns, weight, Some(bias), depthwise);
        let y = self.rows(y);

        let scale = self.weights.get(&format!("{name}.norm.weight"), &[latent]);
        let shift = self.weights.get(&format!("{name}.norm.bias"), &[latent]);
        let (scale, shift) =
            (self.g.constant(&[latent], &scale), self.g.constant(&[latent], &shift));
        let y = self.g.layer_norm(y, scale, shift, LAYER_NORM_EPS);
        let weight = self.weights.get(&format!("{name}.pwconv1.weight"), &[4 * latent, latent]);
        let y = self.linear(y, weight, latent, None, None);
        let bias = self.weights.get(&format!("{name}.pwconv1.bias"), &[4 * latent]);
        let bias = self.g.constant(&[4 * latent], &bias);
        let y = self.g.add(y, bias);
        let y = self.g.unary("Gelu", y);

        let gamma = self.weights.wide(&format!("{name}.gamma"), &[latent]);
        let weight = self.weights.get(&format!("{name}.pwconv2.weight"), &[latent, 4 * latent]);
        let y = self.linear(y, weight, 4 * latent, None, Some(&gamma));
        let mut bias = self.weights.get(&format!("{name}.pwconv2.bias"), &[latent]);
        scale_rows(&mut bias, &gamma);
        let bias = self.g.constant(&[latent], &bias);
        let y = self.g.add(y, bias);
        self.g.add(x, y)
    }

    /// [1, latent, 1, time] to [1, 1, 1, samples].
    fn convolutions(&mut self, x: Edge) -> Edge {
        let config = self.config;
        let mut channels = config.decoder_dim;
        let latent = config.latent_dim;
        let x = self.with_past("decoder.0", x);
        let mut x = self.conv(x, "decoder.0.conv", &[channels, latent, TAPS], 1, None, None);
        for (i, &rate) in config.upsample_rates.iter().enumerate() {
            x = self.block(x, i + 1, channels, rate);
            channels /= 2;
        }
        let last = config.upsample_rates.len() + 1;
        let x = self.snake(x, &format!("decoder.{last}"), channels);
        let x = self.with_past("out", x);
        self.conv(x, &format!("decoder.{}.conv", last + 1), &[1, channels, TAPS], 1, None, None)
    }

    /// A convolution whose outputs are first scaled by `outputs`, and its inputs by `inputs`.
    fn conv(
        &mut self,
        x: Edge,
        name: &str,
        shape: &[usize; 3],
        dilation: usize,
        inputs: Option<&[f64]>,
        outputs: Option<&[f64]>,
    ) -> Edge {
        let mut weight = self.weights.get(&format!("{name}.weight"), shape);
        let mut bias = self.weights.get(&format!("{name}.bias"), &shape[..1]);
        if let Some(inputs) = inputs {
            for output in weight.chunks_exact_mut(shape[1] * shape[2]) {
                scale_rows(output, inputs);
            }
        }
        if let Some(outputs) = outputs {
            scale_rows(&mut weight, outputs);
            scale_rows(&mut bias, outputs);
        }
        let weight = self.g.constant(&[shape[0], shape[1], 1, shape[2]], &weight);
        let bias = self.g.constant(&shape[..1], &bias);
        self.g.flat_conv(x, weight, Some(bias), Conv { dilation, ..Conv::default() })
    }

    /// x + sin(frequency * x)^2 / amplitude.
    fn snake(&mut self, x: Edge, name: &str, channels: usize) -> Edge {
        let (frequency, inverse) = self.weights.snake(name, channels);
        let frequency = self.g.constant(&[channels, 1, 1], &narrow(&frequency));
        let angle = self.g.mul(x, frequency);
        self.add_wave(x, angle, &inverse)
    }

    /// x + sin(angle)^2 * factor.
    fn add_wave(&mut self, x: Edge, angle: Edge, factor: &[f64]) -> Edge {
        let factor = self.g.constant(&[factor.len(), 1, 1], &narrow(factor));
        let sin = self.g.unary("Sin", angle);
        let square = self.g.mul(sin, sin);
        let wave = self.g.mul(square, factor);
        self.g.add(x, wave)
    }

    /// A snake, a transposed convolution by `rate`, three residual units: [1, channels, 1, time] to
    /// [1, channels / 2, 1, time * rate].
    fn block(&mut self, x: Edge, block: usize, channels: usize, rate: usize) -> Edge {
        let name = format!("decoder.{block}.block");
        let x = self.snake(x, &format!("{name}.0"), channels);
        let mut x = self.transposed(x, block, channels, rate);
        let channels = channels / 2;
        for (unit, dilation) in DILATIONS.into_iter().enumerate() {
            let name = format!("{name}.{}", unit + 2);
            let y = self.snake(x, &format!("{name}.act1"), channels);
            let y = self.with_past(&format!("decoder.{block}.{unit}"), y);
            // The second snake's angle is what the convolution gives, and the rest of it is in units of that.
            let (frequency, inverse) = self.weights.snake(&format!("{name}.act2"), channels);
            let shape = [channels, channels, TAPS];
            let conv = format!("{name}.conv1.conv");
            let angle = self.conv(y, &conv, &shape, dilation, None, Some(&frequency));
            let factor: Vec<f64> = frequency.iter().zip(&inverse).map(|(a, b)| a * b).collect();
            let y = self.add_wave(angle, angle, &factor);
            let unscale: Vec<f64> = frequency.iter().map(|a| 1.0 / a).collect();
            let shape = [channels, channels, 1];
            let y = self.conv(y, &format!("{name}.conv2.conv"), &shape, 1, Some(&unscale), None);
            x = self.g.add(x, y);
        }
        x
    }

    /// A transposed convolution with twice as many taps as its stride: the outputs between two inputs are sums over this
    /// input and the one before, so that it is a convolution of two taps to `rate` times as many channels, which are
    /// then put one after another.
    fn transposed(&mut self, x: Edge, block: usize, channels: usize, rate: usize) -> Edge {
        let out = channels / 2;
        let name = format!("decoder.{block}.block.1.conv");
        let weight = self.weights.get(&format!("{name}.weight"), &[channels, out, 2 * rate]);
        let bias = self.weights.get(&format!("{name}.bias"), &[out]);
        let mut taps = Vec::with_capacity(weight.len());
        for output in 0..out {
            for phase in 0..rate {
                for input in 0..channels {
                    let at = (input * out + output) * 2 * rate + phase;
                    taps.extend([weight[at + rate], weight[at]]);
                }
            }
        }
        let weight = self.g.constant(&[out * rate, channels, 1, 2], &taps);
        let bias: Vec<f32> = bias.iter().flat_map(|&value| vec![value; rate]).collect();
        let bias = self.g.constant(&[out * rate], &bias);
        let x = self.with_past(&format!("decoder.{block}.up"), x);
        let y = self.g.flat_conv(x, weight, Some(bias), Conv::default());
        let (out, rate) = (out as i64, rate as i64);
        let y = self.g.reshape(y, &[out, rate, -1]);
        let y = self.g.transpose(y, &[0, 2, 1]);
        self.g.reshape(y, &[1, out, 1, -1])
    }
}

/// The inputs of the same names, which all layers share.
struct AttentionInputs {
    cos: Edge,
    sin: Edge,
    mask: Edge,
}
