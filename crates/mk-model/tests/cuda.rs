//! The CUDA backend against the CPU backend and the host's sampler, on random models of the kernel's dimensions, with the
//! kernels of the GPU that is there and with those for others. Where there is no GPU that the kernels run on, each test
//! says so and checks nothing.

#![cfg(feature = "cuda")]

mod common;

use std::ops::ControlFlow;
use std::time::Instant;

use half::bf16;
use mk_model::backend::cuda::Baseline;
use mk_model::backend::{Input, Readout, Rows};
use mk_model::checkpoint::{Layout, TensorFiles};
use mk_model::rng::uniform;
use mk_model::sampling::{Sampler, Seen, argmax};
use mk_model::synth::Spec;
use mk_model::{
    Checkpoint, CudaFault, CudaOptions, DecodeOptions, Device, Error, Finish, Model, ModelOptions,
    Precision, Sampling, Sequence,
};

const VOCAB: usize = 3001;

/// Two layers of Qwen3-0.6B, with a vocabulary that no tile divides.
fn spec() -> Spec {
    Spec {
        num_hidden_layers: 2,
        vocab_size: VOCAB,
        max_position_embeddings: 9000,
        ..Spec::preset("0.6b").unwrap()
    }
}

/// As `spec`, but as wide as Qwen3-1.7B.
fn wide() -> Spec {
    Spec { hidden_size: 2048, intermediate_size: 6144, num_hidden_layers: 1, ..spec() }
}

fn options(precision: Precision) -> ModelOptions {
    ModelOptions { precision, ..ModelOptions::default() }
}

fn cuda() -> ModelOptions {
    ModelOptions { device: Device::Cuda(0), ..ModelOptions::default() }
}

fn cuda_with(options: CudaOptions) -> ModelOptions {
    ModelOptions { device: Device::CudaWith(options), ..ModelOptions::default() }
}

/// The GPU as it is; then with the kernels for no chip in particular: on all of it, and on as much of it as an A100, an
/// RTX 3090 and an RTX 3060 have, in multiprocessors and in shared memory a block.
fn gpus() -> Vec<CudaOptions> {
    let portable = CudaOptions { portable: true, ..CudaOptions::default() };
    let like = |multiprocessors: u32, kib: u32| CudaOptions {
        multiprocessors: Some(multiprocessors),
        shared_memory: Some(kib << 10),
        ..portable
    };
    vec![CudaOptions::default(), portable, like(108, 163), like(82, 99), like(28, 99)]
}

/// `None`, and a word about it, where there is no GPU for the kernels.
fn on_gpu(load: impl FnOnce() -> mk_model::Result<Model>) -> Option<Model> {
    match load() {
        Ok(model) => Some(model),
        Err(Error::Unavailable { what, reason }) if what == "the CUDA backend" => {
            println!("not checked: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn load(spec: &Spec, options: &ModelOptions) -> mk_model::Result<Model> {
    let dir = common::written(spec);
    Model::load(&Checkpoint::open(dir.path())?, options)
}

fn ids(count: usize, salt: u64) -> Vec<u32> {
    (0..count).map(|i| (uniform(salt, i as u128) * VOCAB as f32) as u32).collect()
}

fn greedy(max_tokens: usize) -> DecodeOptions {
    DecodeOptions { max_tokens, stop_ids: Some(Vec::new()), ..DecodeOptions::default() }
}

fn decode(sequence: &mut Sequence, sampling: &Sampling, options: &DecodeOptions) -> Vec<u32> {
    let mut tokens = Vec::new();
    let finish = sequence.decode(sampling, options, |step| {
        tokens.push(step.token);
        ControlFlow::Continue(())
    });
    finish.unwrap();
    tokens
}

fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let norm = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| x * x).sum::<f32>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    difference / norm(&mut expected.iter().copied())
}

/// How far `found` is from the f32 run of the CPU, at most, by the worst position.
fn worst_error(found: &[f32], expected: &[f32], width: usize) -> f32 {
    let rows = found.chunks_exact(width).zip(expected.chunks_exact(width));
    rows.map(|(found, expected)| relative_error(found, expected)).fold(0.0, f32::max)
}

#[test]
fn logits_and_hidden_states_are_those_of_the_cpu() {
    for spec in [spec(), wide()] {
        if on_gpu(|| load(&spec, &cuda())).is_none() {
            return;
        }
        let exact = load(&spec, &options(Precision::F32)).unwrap();
        let rounded = load(&spec, &options(Precision::Bf16)).unwrap();
        let ids = ids(300, 1);
        let readout = Readout { logits: Rows::All, hidden: Rows::All, head: 0 };
        let run =
            |model: &Model| model.sequence().unwrap().extend(Input::Tokens(&ids), readout).unwrap();
        let (expected, cpu) = (run(&exact), run(&rounded));
        let same = worst_error(&cpu.logits, &expected.logits, VOCAB);
        println!("the CPU's bf16 {same:.2e}");
        let mut portable = None;
        for gpu in gpus() {
            let model = load(&spec, &cuda_with(gpu)).unwrap();
            let found = run(&model);
            let logits = worst_error(&found.logits, &expected.logits, VOCAB);
            let hidden = worst_error(&found.hidden, &expected.hidden, spec.hidden_size);
            println!("{}: logits {logits:.2e}, hidden states {hidden:.2e}", model.describe());
            assert!(logits < 2.0 * same + 1e-3 && hidden < 2e-2, "{logits} {hidden} {same}");
            // How the work is dealt to blocks changes no bit.
            if gpu.portable {
                assert!(*portable.get_or_insert_with(|| found.clone()) == found, "{gpu:?}");
            }
        }
    }
}

#[test]
fn positions_far_into_the_context() {
    if on_gpu(|| load(&spec(), &cuda())).is_none() {
        return;
    }
    let ids = ids(8210, 2);
    let run = |options: &ModelOptions| -> Vec<Vec<f32>> {
        let mut sequence = load(&spec(), options).unwrap().sequence().unwrap();
        let mut done = 0;
        let part = |(from, count)| {
            sequence.extend(Input::Tokens(&ids[done..from]), Readout::NOTHING).unwrap();
            done = from + count;
            let rows = Input::Tokens(&ids[from..done]);
            sequence.extend(rows, Readout::ALL_LOGITS).unwrap().logits
        };
        [(250, 12), (1020, 8), (2040, 16), (4090, 12), (8180, 30)].map(part).into()
    };
    let expected = run(&options(Precision::F32));
    for gpu in gpus() {
        let found = run(&cuda_with(gpu));
        let errors = found.iter().zip(&expected).map(|(f, e)| worst_error(f, e, VOCAB));
        let errors: Vec<f32> = errors.collect();
        println!("{gpu:?}: {errors:?}");
        assert!(errors.iter().all(|error| *error < 3e-2), "{errors:?}");
    }
}

/// The batched kernels, from an empty cache and on top of one, against single steps and against the CPU.
#[test]
fn prefills_of_any_length_agree_with_single_steps() {
    for spec in [spec(), wide()] {
        if on_gpu(|| load(&spec, &cuda())).is_none() {
            return;
        }
        let exact = load(&spec, &options(Precision::F32)).unwrap();
        let [own, portable, ..] = gpus()[..] else { unreachable!() };
        let models = [own, portable].map(|gpu| load(&spec, &cuda_with(gpu)).unwrap());
        let ids = ids(2130, 9);
        let mut worst = [0.0_f32; 2];
        for (before, length) in
            [(0, 4), (0, 5), (1, 63), (3, 64), (17, 65), (0, 128), (2, 300), (90, 1000), (5, 2100)]
        {
            let end = before + length;
            let rest = Input::Tokens(&ids[end..end + 8]);
            let batched = |model: &Model| {
                let mut sequence = model.sequence().unwrap();
                if before > 0 {
                    sequence.extend(Input::Tokens(&ids[..before]), Readout::NOTHING).unwrap();
                }
                sequence.extend(Input::Tokens(&ids[before..end]), Readout::NOTHING).unwrap();
                sequence.extend(rest, Readout::ALL_LOGITS).unwrap().logits
            };
            let expected = batched(&exact);
            for model in &models {
                let logits = batched(model);
                if length <= 300 {
                    let mut stepped = model.sequence().unwrap();
                    for id in &ids[..end] {
                        stepped.extend(Input::Tokens(&[*id]), Readout::NOTHING).unwrap();
                    }
                    let steps = stepped.extend(rest, Readout::ALL_LOGITS).unwrap().logits;
                    worst[1] = worst[1].max(worst_error(&logits, &steps, VOCAB));
                }
                let error = worst_error(&logits, &expected, VOCAB);
                println!("{length} positions after {before}: {error:.2e}");
                worst[0] = worst[0].max(error);
            }
        }
        assert!(worst[0] < 3e-2 && worst[1] < 3e-2, "{worst:?}");
    }
}

/// Everything once, in a run that is short enough for compute-sanitizer's slowest tool.
#[test]
fn one_small_run_own() {
    one_small_run(gpus()[0]);
}

/// The same by the kernels that are made for no chip in particular.
#[test]
fn one_small_run_portable() {
    one_small_run(gpus()[1]);
}

fn one_small_run(gpu: CudaOptions) {
    let spec = Spec { num_hidden_layers: 1, vocab_size: 320, ..spec() };
    let Some(model) = on_gpu(|| load(&spec, &cuda_with(gpu))) else { return };
    let exact = load(&spec, &options(Precision::F32)).unwrap();
    let ids: Vec<u32> = (0..20).map(|i| i * 13 % 320).collect();
    let run = |model: &Model| {
        let mut sequence = model.sequence().unwrap();
        sequence.extend(Input::Tokens(&ids[..18]), Readout::NOTHING).unwrap();
        sequence.extend(Input::Tokens(&ids[18..]), Readout::ALL_LOGITS).unwrap().logits
    };
    let error = worst_error(&run(&model), &run(&exact), 320);
    assert!(error < 3e-2, "{error}");
    for sampling in [
        Sampling::default(),
        Sampling {
            temperature: 1.0,
            top_k: 10,
            top_p: 0.9,
            min_p: 0.01,
            repetition_penalty: 1.1,
            ..Sampling::default()
        },
    ] {
        let mut sequence = model.sequence().unwrap();
        sequence.set_prompt(&ids).unwrap();
        assert_eq!(decode(&mut sequence, &sampling, &greedy(3)).len(), 3);
    }
}

#[test]
fn reruns_are_the_same_to_the_bit() {
    let Some(model) = on_gpu(|| load(&spec(), &cuda())) else { return };
    let ids = ids(4400, 12);
    let run = |sequence: &mut Sequence| {
        sequence.reset();
        let mut rows = Vec::new();
        for (from, to) in [(0, 5), (5, 70), (70, 2200), (2200, 2230), (2230, 4330), (4330, 4400)] {
            let first = to - 3;
            sequence.extend(Input::Tokens(&ids[from..first]), Readout::NOTHING).unwrap();
            let last = Input::Tokens(&ids[first..to]);
            rows.extend(sequence.extend(last, Readout::ALL_LOGITS).unwrap().logits);
        }
        rows
    };
    let mut sequence = model.sequence().unwrap();
    let first = run(&mut sequence);
    for _ in 0..3 {
        assert!(run(&mut sequence) == first);
        assert!(run(&mut model.sequence().unwrap()) == first);
    }
}

/// What the benchmark compares with has to be the same decoder, or the comparison says nothing.
#[test]
fn one_kernel_an_operation_decodes_the_same() {
    for spec in [Spec { num_hidden_layers: 2, tied: false, ..wide() }, spec()] {
        let dir = common::written(&spec);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let Some(model) = on_gpu(|| Model::load(&checkpoint, &cuda())) else { return };
        let exact = Model::load(&checkpoint, &options(Precision::F32)).unwrap();
        let mut baseline = Baseline::load(&checkpoint, 0, 2300).unwrap();
        let (mut sequence, mut expected) = (model.sequence().unwrap(), exact.sequence().unwrap());
        let prompt = ids(2100, 11);
        let mut done = 0;
        for end in [1, 2, 100, 101, 700, 2100] {
            baseline.run(&prompt[done..end], 1, &mut |_| ()).unwrap();
            let input = Input::Tokens(&prompt[done..end]);
            let expected = expected.extend(input, Readout::LAST_LOGITS).unwrap().logits;
            let error = relative_error(&baseline.logits().unwrap(), &expected);
            println!("position {}: {error:.2e}", end - 1);
            assert!(error < 3e-2, "{error}");
            done = end;
        }
        // Along the megakernel's text, each takes the most likely token, but for what rounding decides.
        for length in [1, 2000] {
            sequence.set_prompt(&prompt[..length]).unwrap();
            let text = decode(&mut sequence, &Sampling::default(), &greedy(150));
            let whole = [&prompt[..length], &text[..149]].concat();
            let mut found = Vec::new();
            baseline.truncate(0);
            baseline.run(&whole, 1, &mut |token| found.push(token)).unwrap();
            expected.reset();
            if length > 1 {
                expected.extend(Input::Tokens(&whole[..length - 1]), Readout::NOTHING).unwrap();
            }
            let rest = Input::Tokens(&whole[length - 1..]);
            let logits = expected.extend(rest, Readout::ALL_LOGITS).unwrap().logits;
            let mut other = 0;
            for (i, row) in logits.chunks_exact(VOCAB).enumerate() {
                let (ours, theirs) = (text[i], found[length - 1 + i]);
                let margin = (row[ours as usize] - row[theirs as usize]).abs();
                assert!(margin < 0.3, "{theirs} for {ours}, {margin} apart");
                other += usize::from(ours != theirs);
            }
            println!("{other} of 150 tokens differ, at near-ties");
            assert!(other < 10, "{other}");
            // And left to itself it goes on as it does when it is led, also where its kernels overlap.
            baseline.truncate(0);
            baseline.set_overlapping(true);
            let mut alone = Vec::new();
            baseline.run(&whole[..length], 20, &mut |token| alone.push(token)).unwrap();
            let same = (0..19).take_while(|i| found[length - 1 + i] == text[*i]).count() + 1;
            assert_eq!(alone[length - 1..][..same], found[length - 1..][..same]);
            baseline.set_overlapping(false);
        }
        assert!(matches!(baseline.run(&[1], 3000, &mut |_| ()), Err(Error::ContextFull { .. })));
    }
}

#[test]
fn a_fork_goes_its_own_way() {
    let Some(model) = on_gpu(|| load(&spec(), &cuda())) else { return };
    let mut sequence = model.sequence().unwrap();
    sequence.set_prompt(&ids(1020, 10)).unwrap();
    decode(&mut sequence, &Sampling::default(), &greedy(10));
    let mut fork = sequence.fork().unwrap();
    let other = Sampling { temperature: 1.0, top_k: 20, ..Sampling::default() };
    let mut again = sequence.fork().unwrap();
    assert_ne!(
        decode(&mut fork, &other, &greedy(70)),
        decode(&mut again, &Sampling::default(), &greedy(70))
    );
    let mut whole = model.sequence().unwrap();
    whole.set_prompt(&ids(1020, 10)).unwrap();
    let expected = decode(&mut whole, &Sampling::default(), &greedy(80));
    assert_eq!(decode(&mut sequence, &Sampling::default(), &greedy(70)), expected[10..]);
}

/// Settings of every kind that the device samples by, and two that the host does.
fn settings() -> Vec<Sampling> {
    let base = Sampling { temperature: 0.9, top_k: 50, seed: 3, ..Sampling::default() };
    vec![
        Sampling::default(),
        Sampling { repetition_penalty: 1.3, ..Sampling::default() },
        Sampling { suppress: (0..VOCAB as u32).step_by(2).collect(), ..Sampling::default() },
        base.clone(),
        Sampling { top_p: 0.8, ..base.clone() },
        Sampling { min_p: 0.1, temperature: 1.5, ..base.clone() },
        Sampling { top_k: 1, ..base.clone() },
        Sampling { top_k: 64, temperature: 3.0, seed: u64::MAX, ..base.clone() },
        Sampling {
            top_p: 0.95,
            min_p: 0.01,
            repetition_penalty: 1.05,
            suppress: (2048..VOCAB as u32).collect(),
            temperature: 2.0,
            ..base.clone()
        },
        Sampling { top_k: 0, top_p: 0.9, ..base.clone() },
        Sampling { top_k: 65, ..base },
    ]
}

#[test]
fn sampling_is_that_of_the_host_to_the_bit() {
    if on_gpu(|| load(&spec(), &cuda())).is_none() {
        return;
    }
    for gpu in gpus() {
        samples_as_the_host_does(&load(&spec(), &cuda_with(gpu)).unwrap());
    }
}

fn samples_as_the_host_does(model: &Model) {
    let prompt = ids(9, 3);
    for sampling in settings() {
        let mut sequence = model.sequence().unwrap();
        sequence.set_prompt(&prompt).unwrap();
        let mut seen = Seen::new(VOCAB);
        prompt.iter().for_each(|id| seen.insert(*id));
        let mut sampler = Sampler::new(&sampling, VOCAB).unwrap();
        let mut tokens = Vec::new();
        let read = DecodeOptions { readout: Readout::LAST_LOGITS, ..greedy(150) };
        sequence
            .decode(&sampling, &read, |step| {
                let draw = tokens.len() as u64;
                let expected = sampler.sample(step.logits.unwrap(), &seen, draw).unwrap();
                assert_eq!(step.token, expected, "draw {draw} of {sampling:?}");
                seen.insert(step.token);
                tokens.push(step.token);
                ControlFlow::Continue(())
            })
            .unwrap();
        // The same in long launches, and in a run of two parts.
        for split in [150, 71] {
            sequence.set_prompt(&prompt).unwrap();
            let mut again = decode(&mut sequence, &sampling, &greedy(split));
            if split < 150 {
                again.extend(decode(&mut sequence, &sampling, &greedy(150 - split)));
            }
            assert_eq!(again, tokens, "{sampling:?}");
        }
    }
}

#[test]
fn runs_end_for_the_reason_they_say() {
    let Some(model) = on_gpu(|| load(&spec(), &cuda())) else { return };
    let prompt = ids(10, 4);
    let sampling = Sampling { temperature: 1.0, top_k: 64, ..Sampling::default() };
    let mut sequence = model.sequence_with_capacity(200).unwrap();
    sequence.set_prompt(&prompt).unwrap();
    let all = decode(&mut sequence, &sampling, &greedy(150));
    for (max, stop, break_at) in
        [(150, None, None), (150, Some(100), None), (150, None, Some(70)), (500, None, None)]
    {
        sequence.set_prompt(&prompt).unwrap();
        let stop_ids = stop.map(|at: usize| all[at]).into_iter().collect();
        let options = DecodeOptions { stop_ids: Some(stop_ids), ..greedy(max) };
        let mut tokens = Vec::new();
        let finish = sequence.decode(&sampling, &options, |step| {
            tokens.push(step.token);
            match break_at {
                Some(at) if tokens.len() == at => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        let first_stop = stop.and_then(|at| all.iter().position(|id| *id == all[at]));
        let (expected, count) = match (first_stop, break_at) {
            (Some(at), _) => (Finish::Stop(all[at]), at + 1),
            (_, Some(at)) => (Finish::Cancelled, at),
            _ if max == 500 => (Finish::Context, 191),
            _ => (Finish::Length, 150),
        };
        assert_eq!((finish.unwrap(), tokens.len()), (expected, count));
        assert_eq!(tokens[..count.min(150)], all[..count.min(150)]);
        if count < 150 {
            // What ran on the device beyond the end has left nothing behind.
            let rest = decode(&mut sequence, &sampling, &greedy(150 - count));
            assert_eq!(rest, all[count..]);
        }
    }
}

#[test]
fn sequences_share_weights_and_nothing_else() {
    let Some(model) = on_gpu(|| load(&spec(), &cuda())) else { return };
    let run = |salt: u64| {
        let mut sequence = model.sequence().unwrap();
        sequence.set_prompt(&ids(20, salt)).unwrap();
        decode(&mut sequence, &Sampling::default(), &greedy(400))
    };
    let alone: Vec<Vec<u32>> = (0..4).map(run).collect();
    let run = &run;
    let together: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|salt| scope.spawn(move || run(salt))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn a_shared_prefix_is_not_computed_again() {
    let Some(model) = on_gpu(|| load(&spec(), &cuda())) else { return };
    let mut sequence = model.sequence().unwrap();
    sequence.set_prompt(&ids(40, 5)).unwrap();
    let first = decode(&mut sequence, &Sampling::default(), &greedy(30));
    assert_eq!(sequence.set_prompt(&ids(40, 5)).unwrap(), 39);
    assert_eq!(decode(&mut sequence, &Sampling::default(), &greedy(30)), first);
}

/// A decoder inside another checkpoint, fed rows, with several heads and no embedding, as in Qwen3-TTS.
#[test]
fn rows_and_several_heads() {
    let spec = Spec { tied: false, ..spec() };
    let dir = common::written(&spec);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let Some(whole) = on_gpu(|| Model::load(&checkpoint, &cuda())) else { return };
    let tensors = TensorFiles::open(dir.path()).unwrap();
    let layout = Layout {
        prefix: "model.".into(),
        embedding: None,
        heads: vec!["lm_head.weight".into(), "model.embed_tokens.weight".into()],
    };
    let part = |options: &ModelOptions| {
        Model::load_part(dir.path(), checkpoint.config(), &layout, &tensors, options).unwrap()
    };
    let (model, exact) = (part(&cuda()), part(&options(Precision::F32)));
    let table = tensors.get("model.embed_tokens.weight").unwrap().to_f32();
    let ids = ids(30, 6);
    let width = spec.hidden_size;
    let row = |id: &u32| table[*id as usize * width..(*id as usize + 1) * width].iter().copied();
    let rows: Vec<f32> = ids.iter().flat_map(row).collect();
    for head in 0..2 {
        let readout = Readout { logits: Rows::All, hidden: Rows::Last, head };
        let run = |model: &Model| {
            model.sequence().unwrap().extend(Input::Embeddings(&rows), readout).unwrap()
        };
        let (found, expected) = (run(&model), run(&exact));
        assert!(worst_error(&found.logits, &expected.logits, VOCAB) < 2e-2);
        assert!(worst_error(&found.hidden, &expected.hidden, width) < 2e-2);
        if head == 0 {
            let by_id = whole.sequence().unwrap().extend(Input::Tokens(&ids), readout).unwrap();
            assert_eq!(found, by_id);
        }
        // Step by step, with a row that no bf16 holds.
        let mut sequence = model.sequence().unwrap();
        let last = Readout { logits: Rows::Last, hidden: Rows::Last, head };
        for (i, row) in rows.chunks_exact(width).enumerate() {
            let step = sequence.step(Input::Embeddings(row), &Sampling::default(), last).unwrap();
            assert_eq!(step.output.logits, found.logits[i * VOCAB..(i + 1) * VOCAB]);
            assert_eq!(Some(step.token), argmax(&step.output.logits));
        }
    }
    let uneven: Vec<f32> = rows.iter().map(|x| x * 1.001).collect();
    let run = |model: &Model| {
        let input = Input::Embeddings(&uneven);
        model.sequence().unwrap().extend(input, Readout::ALL_LOGITS).unwrap().logits
    };
    assert!(worst_error(&run(&model), &run(&exact), VOCAB) < 2e-2);
}

/// Rewrites bf16 weights of a checkpoint: each number by its tensor's name and its index.
fn rewritten(spec: &Spec, change: impl Fn(&str, usize, bf16) -> bf16) -> tempfile::TempDir {
    let dir = common::written(spec);
    common::edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
        for (name, tensor) in tensors {
            for (i, number) in tensor.bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                *number = change(name, i, bf16::from_le_bytes(*number)).to_le_bytes();
            }
        }
    });
    dir
}

fn open(dir: &tempfile::TempDir, options: &ModelOptions) -> mk_model::Result<Model> {
    Model::load(&Checkpoint::open(dir.path())?, options)
}

/// The layers add nothing, the head's rows have length one, and what is fed points along one of them.
#[test]
fn every_vocabulary_id_can_be_the_argmax() {
    let spec = Spec { num_hidden_layers: 1, tied: false, ..spec() };
    let width = spec.hidden_size;
    let mut rows: Vec<f32> = (0..VOCAB * width).map(|i| uniform(17, i as u128) - 0.5).collect();
    for row in rows.chunks_exact_mut(width) {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= length);
    }
    let dir = rewritten(&spec, |name, i, number| match name {
        "lm_head.weight" => bf16::from_f32(rows[i]),
        "model.norm.weight" => bf16::ONE,
        _ if name.contains("o_proj") || name.contains("down_proj") => bf16::ZERO,
        _ => number,
    });
    if on_gpu(|| open(&dir, &cuda())).is_none() {
        return;
    }
    for gpu in gpus() {
        let model = open(&dir, &cuda_with(gpu)).unwrap();
        let mut sequence = model.sequence_with_capacity(1).unwrap();
        for (id, row) in rows.chunks_exact(width).enumerate() {
            sequence.reset();
            let step =
                sequence.step(Input::Embeddings(row), &Sampling::default(), Readout::NOTHING);
            assert_eq!(step.unwrap().token, id as u32);
        }
    }
}

/// With a head of zeros all logits are equal: the lowest id wins, and a draw is left to the host.
#[test]
fn ties_are_broken_as_on_the_host() {
    let spec = Spec { num_hidden_layers: 1, tied: false, ..spec() };
    let dir = rewritten(&spec, |name, i, number| match name {
        // Four ids above the others, which are equal.
        "lm_head.weight" if i / 1024 % 900 != 7 => bf16::ZERO,
        _ => number,
    });
    if on_gpu(|| open(&dir, &cuda())).is_none() {
        return;
    }
    for (gpu, top_k) in gpus().into_iter().flat_map(|gpu| [2, 5, 64].map(|top_k| (gpu, top_k))) {
        let model = open(&dir, &cuda_with(gpu)).unwrap();
        let sampling = Sampling { temperature: 9.0, top_k, seed: 5, ..Sampling::default() };
        let mut sequence = model.sequence().unwrap();
        sequence.set_prompt(&ids(3, 7)).unwrap();
        let mut sampler = Sampler::new(&sampling, VOCAB).unwrap();
        let mut draw = 0;
        let read = DecodeOptions { readout: Readout::LAST_LOGITS, ..greedy(40) };
        let mut tokens = Vec::new();
        sequence
            .decode(&sampling, &read, |step| {
                let expected = sampler.sample(step.logits.unwrap(), &Seen::new(VOCAB), draw);
                assert_eq!(step.token, expected.unwrap());
                tokens.push(step.token);
                draw += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        sequence.set_prompt(&ids(3, 7)).unwrap();
        assert_eq!(decode(&mut sequence, &sampling, &greedy(40)), tokens);
    }
}

/// Many launches of a few tokens, of two sequences at once; nothing may hang, and nothing may change.
#[test]
fn thousands_of_launches_side_by_side() {
    if on_gpu(|| load(&spec(), &cuda())).is_none() {
        return;
    }
    for gpu in gpus() {
        let model = &load(&spec(), &cuda_with(gpu)).unwrap();
        let run = |salt: u64| {
            let mut sequence = model.sequence().unwrap();
            let prompt = ids(8, salt);
            let mut longest: Vec<u32> = Vec::new();
            for round in (0..2000).rev() {
                sequence.set_prompt(&prompt).unwrap();
                let tokens = decode(&mut sequence, &Sampling::default(), &greedy(1 + round % 20));
                if longest.is_empty() {
                    longest = tokens;
                } else {
                    assert_eq!(tokens, longest[..tokens.len()]);
                }
            }
        };
        let run = &run;
        std::thread::scope(|scope| {
            (20..22).for_each(|salt| {
                scope.spawn(move || run(salt));
            });
        });
    }
}

/// Each wait of the decode kernel, made to fail in launches at one position.
#[test]
fn a_wait_that_takes_too_long_is_an_error_with_its_name() {
    if on_gpu(|| load(&spec(), &cuda())).is_none() {
        return;
    }
    let sampled = Sampling { temperature: 1.0, top_k: 20, seed: 1, ..Sampling::default() };
    let (healthy, hit) = (ids(20, 11), ids(13, 12));
    // Each wait is long enough there to fail within the tokens of a launch, though its data may come before the first look.
    let [own, portable, ..] = gpus()[..] else { unreachable!() };
    for gpu in [own, portable] {
        let model = load(&spec(), &cuda_with(gpu)).unwrap();
        let mut sequence = model.sequence().unwrap();
        sequence.set_prompt(&healthy).unwrap();
        let expected = decode(&mut sequence, &sampled, &greedy(30));
        for (wait, name) in [
            (1, "the attention's input"),
            (2, "queries, keys and values"),
            (3, "the attention's result"),
            (4, "the feed-forward's input"),
            (5, "the feed-forward's activations"),
            (6, "the head's input"),
            (7, "the largest logits"),
            (8, "the candidates to sample from"),
            (9, "weights, keys and values from memory"),
        ] {
            let fault = Some(CudaFault { position: hit.len() - 1, wait });
            let model = load(&spec(), &cuda_with(CudaOptions { fault, ..gpu })).unwrap();
            let mut sequence = model.sequence().unwrap();
            sequence.set_prompt(&hit).unwrap();
            let started = Instant::now();
            let failed = sequence.decode(&sampled, &greedy(64), |_| ControlFlow::Continue(()));
            println!("{wait}: {:?} after {:?}", failed, started.elapsed());
            let Err(Error::Device(reason)) = failed else { panic!("{wait}: {failed:?}") };
            assert!(reason.ends_with(name), "{reason}");
            // The same sequence, and another.
            sequence.set_prompt(&healthy).unwrap();
            assert_eq!(decode(&mut sequence, &sampled, &greedy(30)), expected);
            let mut other = model.sequence().unwrap();
            other.set_prompt(&healthy).unwrap();
            assert_eq!(decode(&mut other, &sampled, &greedy(30)), expected);
        }
    }
}

#[test]
fn errors_leave_the_sequence_and_the_device_usable() {
    let Some(model) = on_gpu(|| load(&spec(), &cuda())) else { return };
    // Too much for the head; and already between two layers, where what is not finite goes from block to block.
    for huge in ["model.norm.weight", "model.layers.0.mlp.down_proj.weight"] {
        let dir = rewritten(&spec(), |name, _, n| if name == huge { bf16::MAX } else { n });
        let broken = open(&dir, &cuda()).unwrap();
        let mut sequence = broken.sequence().unwrap();
        sequence.extend(Input::Tokens(&ids(3, 8)), Readout::NOTHING).unwrap();
        let failed = sequence.extend(Input::Tokens(&[7]), Readout::LAST_LOGITS);
        assert!(matches!(failed, Err(Error::NotFinite { position: 3, .. })), "{failed:?}");
        assert_eq!(sequence.cached_len(), 3);
        sequence.push(&[9]).unwrap();
        let failed =
            sequence.decode(&Sampling::default(), &greedy(5), |_| ControlFlow::Continue(()));
        assert!(matches!(failed, Err(Error::NotFinite { position: 3, .. })), "{failed:?}");
    }

    let mut sequence = model.sequence().unwrap();
    sequence.set_prompt(&ids(10, 8)).unwrap();
    let expected = decode(&mut sequence, &Sampling::default(), &greedy(20));
    sequence.set_prompt(&ids(10, 8)).unwrap();
    let none = Sampling { suppress: (0..VOCAB as u32).collect(), ..Sampling::default() };
    let failed = sequence.decode(&none, &greedy(5), |_| ControlFlow::Continue(()));
    assert!(matches!(failed, Err(Error::NothingToSample)), "{failed:?}");
    assert_eq!(decode(&mut sequence, &Sampling::default(), &greedy(20)), expected);
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let refused = |spec: &Spec, options: &ModelOptions| match load(spec, options) {
        Err(Error::Unavailable { what, reason }) => {
            assert_eq!(what, "the CUDA backend");
            reason
        }
        other => panic!("{other:?}"),
    };
    let f32 = ModelOptions { precision: Precision::F32, ..cuda() };
    assert!(refused(&Spec::tiny(), &f32).contains("f32"));
    let far = ModelOptions { device: Device::Cuda(1000), ..ModelOptions::default() };
    refused(&Spec::tiny(), &far);
    if on_gpu(|| load(&spec(), &cuda())).is_some() {
        let small = |multiprocessors, shared_memory| {
            let limits = CudaOptions { multiprocessors, shared_memory, ..CudaOptions::default() };
            refused(&spec(), &cuda_with(limits))
        };
        assert!(small(Some(0), None).contains("multiprocessors, there are 0"));
        assert!(small(Some(2), None).contains("shared memory where there are 2"));
        assert!(small(None, Some(48 << 10)).contains("it can have 49152"));
    }
    // Without a GPU the reason is that; with one, that no kernel has these dimensions.
    println!("{}", refused(&Spec::tiny(), &cuda()));
}
