//! The tensors of the codec.

use mk_model::synth::tensors::{Kind, Tensor};

use super::Spec;

/// Strides of the encoder as its config has them, last first.
pub(super) const ENCODER_RATIOS: [usize; 4] = [8, 6, 5, 4];
/// Standard deviation of a layer's output for unit normal inputs.
const GAIN: f32 = 0.7;
/// Likewise of the last convolution, chosen such that most samples are within a tenth of full scale and hardly any
/// beyond a half: the clamp hides nothing.
const OUTPUT_GAIN: f32 = 0.1;
const BIAS_STD: f32 = 0.05;
/// Logarithms of the snakes' frequencies and amplitudes.
const SNAKE_STD: f32 = 0.3;
/// Layer scales and ConvNeXt's gammas. Trained ones are smaller, but then these layers could be wrong unnoticed.
const SCALE_MEAN: f32 = 0.3;

/// All tensors of `speech_tokenizer/model.safetensors`, in the order of their names.
pub(super) fn tensors(spec: &Spec) -> Vec<Tensor> {
    let mut all = Tensors(Vec::new());
    decoder(spec, &mut all);
    encoder(spec, &mut all);
    all.0.sort_by(|a, b| a.name.cmp(&b.name));
    all.0
}

struct Tensors(Vec<Tensor>);

impl Tensors {
    fn add(&mut self, name: String, shape: &[usize], kind: Kind) {
        self.0.push(Tensor { name, shape: shape.into(), kind });
    }

    /// A weight whose outputs are sums of as many products as it has columns.
    fn weight(&mut self, name: &str, shape: &[usize]) {
        let fan_in: usize = shape[1..].iter().product();
        self.add(format!("{name}.weight"), shape, linear(fan_in, GAIN));
    }

    fn bias(&mut self, name: &str, size: usize) {
        self.add(format!("{name}.bias"), &[size], Kind::Linear { std: BIAS_STD });
    }

    fn weight_and_bias(&mut self, name: &str, shape: &[usize]) {
        self.weight(name, shape);
        self.bias(name, shape[0]);
    }

    /// A transposed convolution `[input, output, kernel]`: `kernel / stride` positions of the input reach an output.
    fn transposed(&mut self, name: &str, shape: [usize; 3], stride: usize) {
        let kind = linear(shape[0] * shape[2] / stride, GAIN);
        self.add(format!("{name}.weight"), &shape, kind);
        self.bias(name, shape[1]);
    }

    fn norm(&mut self, name: &str, size: usize) {
        self.add(format!("{name}.weight"), &[size], Kind::Norm { mean: 1.0 });
    }

    fn snake(&mut self, name: &str, channels: usize) {
        for what in ["alpha", "beta"] {
            self.add(format!("{name}.{what}"), &[channels], Kind::Linear { std: SNAKE_STD });
        }
    }

    fn scale(&mut self, name: &str, size: usize) {
        self.add(name.into(), &[size], Kind::Norm { mean: SCALE_MEAN });
    }

    /// Codebooks are stored as sums of what was assigned to an entry, and how much that was.
    fn codebook(&mut self, usage: String, sum: String, size: usize, width: usize) {
        self.add(usage, &[size], Kind::Uniform { low: 0.5, high: 4.5 });
        self.add(sum, &[size, width], Kind::Linear { std: 1.0 });
    }
}

fn linear(fan_in: usize, gain: f32) -> Kind {
    Kind::Linear { std: gain / (fan_in as f32).sqrt() }
}

fn decoder(spec: &Spec, all: &mut Tensors) {
    let shape = &spec.codec_decoder;
    let (latent, dim) = (shape.latent_dim, shape.codebook_dim);
    for (name, books) in [("rvq_first", 1), ("rvq_rest", spec.code_groups - 1)] {
        let name = format!("decoder.quantizer.{name}");
        all.weight(&format!("{name}.input_proj"), &[dim / 2, dim, 1]);
        all.weight(&format!("{name}.output_proj"), &[dim, dim / 2, 1]);
        for book in 0..books {
            let book = format!("{name}.vq.layers.{book}._codebook");
            let (usage, sum) = (format!("{book}.cluster_usage"), format!("{book}.embedding_sum"));
            all.codebook(usage, sum, spec.codebook_size, dim / 2);
        }
    }
    all.weight_and_bias("decoder.pre_conv.conv", &[latent, dim, 3]);
    transformer(spec, all);
    for (i, factor) in shape.upsampling_ratios.iter().copied().enumerate() {
        let name = format!("decoder.upsample.{i}");
        all.transposed(&format!("{name}.0.conv"), [latent, latent, factor], factor);
        all.weight_and_bias(&format!("{name}.1.dwconv.conv"), &[latent, 1, 7]);
        all.norm(&format!("{name}.1.norm"), latent);
        all.bias(&format!("{name}.1.norm"), latent);
        all.weight_and_bias(&format!("{name}.1.pwconv1"), &[4 * latent, latent]);
        all.weight_and_bias(&format!("{name}.1.pwconv2"), &[latent, 4 * latent]);
        all.scale(&format!("{name}.1.gamma"), latent);
    }
    all.weight_and_bias("decoder.decoder.0.conv", &[shape.decoder_dim, latent, 7]);
    let mut channels = shape.decoder_dim;
    for (i, rate) in shape.upsample_rates.iter().copied().enumerate() {
        let name = format!("decoder.decoder.{}.block", i + 1);
        all.snake(&format!("{name}.0"), channels);
        all.transposed(&format!("{name}.1.conv"), [channels, channels / 2, 2 * rate], rate);
        channels /= 2;
        for unit in 2..5 {
            let name = format!("{name}.{unit}");
            all.snake(&format!("{name}.act1"), channels);
            all.weight_and_bias(&format!("{name}.conv1.conv"), &[channels, channels, 7]);
            all.snake(&format!("{name}.act2"), channels);
            all.weight_and_bias(&format!("{name}.conv2.conv"), &[channels, channels, 1]);
        }
    }
    let last = shape.upsample_rates.len() + 1;
    all.snake(&format!("decoder.decoder.{last}"), channels);
    let name = format!("decoder.decoder.{}.conv", last + 1);
    all.add(format!("{name}.weight"), &[1, channels, 7], linear(channels * 7, OUTPUT_GAIN));
    all.add(format!("{name}.bias"), &[1], Kind::Linear { std: BIAS_STD * OUTPUT_GAIN });
}

fn transformer(spec: &Spec, all: &mut Tensors) {
    let shape = &spec.codec_decoder;
    let (hidden, inter) = (shape.hidden_size, shape.intermediate_size);
    let q = shape.num_attention_heads * shape.head_dim;
    let kv = shape.num_key_value_heads * shape.head_dim;
    let name = "decoder.pre_transformer";
    all.weight_and_bias(&format!("{name}.input_proj"), &[hidden, shape.latent_dim]);
    for layer in 0..shape.num_hidden_layers {
        let name = format!("{name}.layers.{layer}");
        all.norm(&format!("{name}.input_layernorm"), hidden);
        all.weight(&format!("{name}.self_attn.q_proj"), &[q, hidden]);
        all.weight(&format!("{name}.self_attn.k_proj"), &[kv, hidden]);
        all.weight(&format!("{name}.self_attn.v_proj"), &[kv, hidden]);
        all.weight(&format!("{name}.self_attn.o_proj"), &[hidden, q]);
        all.scale(&format!("{name}.self_attn_layer_scale.scale"), hidden);
        all.norm(&format!("{name}.post_attention_layernorm"), hidden);
        all.weight(&format!("{name}.mlp.gate_proj"), &[inter, hidden]);
        all.weight(&format!("{name}.mlp.up_proj"), &[inter, hidden]);
        all.weight(&format!("{name}.mlp.down_proj"), &[hidden, inter]);
        all.scale(&format!("{name}.mlp_layer_scale.scale"), hidden);
    }
    all.norm(&format!("{name}.norm"), hidden);
    all.weight_and_bias(&format!("{name}.output_proj"), &[shape.latent_dim, hidden]);
}

/// The front half of a Mimi model.
fn encoder(spec: &Spec, all: &mut Tensors) {
    let shape = &spec.codec_encoder;
    let (hidden, inter) = (shape.hidden_size, shape.intermediate_size);
    let mut channels = shape.num_filters;
    let name = "encoder.encoder.layers";
    all.weight_and_bias(&format!("{name}.0.conv"), &[channels, 1, 7]);
    // Activations have numbers too: a residual block, an activation, a strided convolution.
    for (i, stride) in ENCODER_RATIOS.into_iter().rev().enumerate() {
        let half = channels / 2;
        let block = format!("{name}.{}.block", 3 * i + 1);
        all.weight_and_bias(&format!("{block}.1.conv"), &[half, channels, 3]);
        all.weight_and_bias(&format!("{block}.3.conv"), &[channels, half, 1]);
        let conv = format!("{name}.{}.conv", 3 * i + 3);
        all.weight_and_bias(&conv, &[2 * channels, channels, 2 * stride]);
        channels *= 2;
    }
    let last = 3 * ENCODER_RATIOS.len() + 2;
    all.weight_and_bias(&format!("{name}.{last}.conv"), &[hidden, channels, 3]);
    let q = shape.num_attention_heads * shape.head_dim;
    for layer in 0..shape.num_hidden_layers {
        let name = format!("encoder.encoder_transformer.layers.{layer}");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            all.norm(&format!("{name}.{norm}"), hidden);
            all.bias(&format!("{name}.{norm}"), hidden);
        }
        for projection in ["q_proj", "k_proj", "v_proj"] {
            all.weight(&format!("{name}.self_attn.{projection}"), &[q, hidden]);
        }
        all.weight(&format!("{name}.self_attn.o_proj"), &[hidden, q]);
        all.scale(&format!("{name}.self_attn_layer_scale.scale"), hidden);
        all.weight(&format!("{name}.mlp.fc1"), &[inter, hidden]);
        all.weight(&format!("{name}.mlp.fc2"), &[hidden, inter]);
        all.scale(&format!("{name}.mlp_layer_scale.scale"), hidden);
    }
    all.weight("encoder.downsample.conv", &[hidden, hidden, 4]);
    for (name, books) in [("semantic", 1), ("acoustic", shape.num_quantizers - 1)] {
        let name = format!("encoder.quantizer.{name}_residual_vector_quantizer");
        all.weight(&format!("{name}.input_proj"), &[shape.codebook_dim, hidden, 1]);
        all.weight(&format!("{name}.output_proj"), &[hidden, shape.codebook_dim, 1]);
        for book in 0..books {
            let book = format!("{name}.layers.{book}.codebook");
            let (usage, sum) = (format!("{book}.cluster_usage"), format!("{book}.embed_sum"));
            all.codebook(usage, sum, spec.codebook_size, shape.codebook_dim);
            let ones = Kind::Uniform { low: 1.0, high: 1.0 };
            all.add(format!("{book}.initialized"), &[1], ones);
        }
    }
}
