use std::path::PathBuf;

use super::*;
use crate::onnx::{Conv, Dim, Element, GraphBuilder};

/// A streaming convolution: `y = conv(concat(state, x))`, the state being the last column, and a count of columns.
fn streaming_conv() -> Vec<u8> {
    let mut g = GraphBuilder::new("streaming");
    let x = g.input("x", Element::F32, &[Dim::Fixed(1), Dim::Fixed(2), Dim::Any("t")]);
    let n = g.input("n", Element::I64, &[Dim::Fixed(1)]);
    let state = g.input("state", Element::F32, &[Dim::Fixed(1), Dim::Fixed(2), Dim::Fixed(1)]);
    let row = g.concat(&[state, x], 2);
    let weight = g.constant(&[1, 2, 2], &[1.0, 10.0, 100.0, 1000.0]);
    let bias = g.constant(&[1], &[0.5]);
    let y = g.conv(row, weight, Some(bias), Conv::default());
    let last = g.slice(row, 2, -1, i64::MAX);
    let shape = g.node("Shape", &[x], Vec::new());
    let width = g.slice(shape, 0, 2, 3);
    let count = g.add(n, width);
    g.output(y, "y", Element::F32, &[Dim::Fixed(1), Dim::Fixed(1), Dim::Any("t")]);
    g.output(count, "count", Element::I64, &[Dim::Fixed(1)]);
    g.output(last, "last", Element::F32, &[Dim::Fixed(1), Dim::Fixed(2), Dim::Fixed(1)]);
    g.finish().to_bytes()
}

/// Columns (a, b) of x: y_t = a_{t-1} + 10 a_t + 100 b_{t-1} + 1000 b_t + 0.5.
fn streams(runtime: &Runtime) {
    let graph = runtime.load(Source::Bytes(&streaming_conv())).unwrap();
    let x = [[1.0, 2.0, 3.0, 4.0], [0.0, 5.0, 6.0, 7.0]];
    let expected = [10.5, 5021.5, 6532.5, 7643.5];
    for split in [4, 2, 1] {
        let mut state = Value::f32(&[1, 2, 1], vec![0.0; 2]).unwrap();
        let mut count = Value::i64(&[1], vec![0]).unwrap();
        let mut all = Vec::new();
        for at in (0..4).step_by(split) {
            let columns = x.iter().flat_map(|row| row[at..at + split].to_vec()).collect();
            let columns = Value::f32(&[1, 2, split], columns).unwrap();
            let inputs = vec![("x", columns), ("n", count), ("state", state)];
            let mut values = graph.run(inputs, &["y", "count"], &["last"]).unwrap().into_iter();
            let mut next = || values.next().unwrap();
            let (shape, y) = next().into_f32().unwrap();
            assert_eq!(shape, [1, 1, split]);
            all.extend(y);
            (count, state) = (next(), next());
        }
        assert_eq!(all, expected, "{}", runtime.describe());
        assert_eq!(count.into_i64().unwrap(), (vec![1], vec![4]));
        assert_eq!(state.into_f32().unwrap(), (vec![1, 2, 1], vec![4.0, 7.0]));
    }
}

/// What must be an error, and one that says what is wrong.
fn refuses(runtime: &Runtime) {
    let graph = runtime.load(Source::Bytes(&streaming_conv())).unwrap();
    let x = || ("x", Value::f32(&[1, 2, 1], vec![0.0; 2]).unwrap());
    let n = || ("n", Value::i64(&[1], vec![0]).unwrap());
    let state = || ("state", Value::f32(&[1, 2, 1], vec![0.0; 2]).unwrap());
    let says = |inputs: Vec<(&str, Value)>, outputs: &[&str], word: &str| {
        let error = graph.run(inputs, outputs, &[]).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    says(vec![x(), n()], &["y"], "state");
    says(vec![x(), n(), state()], &["z"], "z");
    says(vec![x(), n(), state(), ("more", n().1)], &["y"], "more");
    says(vec![x(), n(), ("state", n().1)], &["y"], "");
    says(vec![x(), n(), ("state", Value::f32(&[2], vec![0.0; 2]).unwrap())], &["y"], "");
    assert!(graph.run(vec![x(), n(), state()], &["y"], &[]).is_ok());

    assert!(runtime.load(Source::Bytes(b"no model")).is_err());
    let error = runtime.load(Source::File(Path::new("/no/such.onnx"))).err().unwrap();
    assert!(error.to_string().contains("/no/such.onnx"), "{error}");
}

fn rten() -> Runtime {
    let options = RuntimeOptions { engine: EngineChoice::Rten, ..RuntimeOptions::default() };
    Runtime::open(&options).unwrap()
}

/// ONNX Runtime, where the environment says where it is: tests need no library.
fn onnxruntime() -> Option<Runtime> {
    let library = std::env::var_os("ORT_DYLIB_PATH")?;
    let options = RuntimeOptions { library: Some(library.into()), ..RuntimeOptions::default() };
    Some(Runtime::open(&options).unwrap())
}

#[test]
fn values_go_from_run_to_run() {
    streams(&rten());
    onnxruntime().iter().for_each(streams);
}

#[test]
fn wrong_inputs_are_named() {
    refuses(&rten());
    onnxruntime().iter().for_each(refuses);
}

#[test]
fn values_of_the_wrong_shape_or_type() {
    assert!(Value::f32(&[2, 3], vec![0.0; 5]).is_err());
    assert!(Value::f32(&[usize::MAX, 2], vec![]).is_err());
    assert!(Value::i64(&[1], vec![1]).unwrap().into_f32().is_err());
}

#[test]
fn whole_numbers_that_rten_cannot_hold() {
    let graph = rten().load(Source::Bytes(&streaming_conv())).unwrap();
    let inputs = vec![("n", Value::i64(&[1], vec![1 << 40]).unwrap())];
    assert!(graph.run(inputs, &["y"], &[]).unwrap_err().to_string().contains("32 bits"));
}

#[test]
fn a_file_that_is_no_onnx_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("libonnxruntime.so.1.99.0");
    std::fs::write(&broken, "no library").unwrap();
    assert_eq!(find_library(dir.path()), Some(broken.clone()));

    // Named, it must be one, unless another engine was asked for.
    for engine in [EngineChoice::Auto, EngineChoice::OnnxRuntime] {
        for library in [broken.clone(), dir.path().join("gone.so")] {
            let library = Some(library);
            let options = RuntimeOptions { engine, library, ..RuntimeOptions::default() };
            let error = Runtime::open(&options).unwrap_err().to_string();
            assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
        }
    }
    // Come across, it is passed over.
    let search: Vec<PathBuf> = vec![dir.path().into()];
    let options = RuntimeOptions { search: search.clone(), ..RuntimeOptions::default() };
    assert!(Runtime::open(&options).unwrap().describe().starts_with("rten"));
    let options = RuntimeOptions { engine: EngineChoice::OnnxRuntime, search, ..options };
    assert!(Runtime::open(&options).is_err());
}

#[test]
fn no_library_at_all() {
    let options = RuntimeOptions { cuda: Some(0), ..RuntimeOptions::default() };
    assert!(Runtime::open(&options).unwrap().describe().starts_with("rten"));
    let options = RuntimeOptions { engine: EngineChoice::OnnxRuntime, ..options };
    assert!(Runtime::open(&options).unwrap_err().to_string().contains("setup --onnx"));
}

#[test]
fn names_of_the_library() {
    for name in ["libonnxruntime.so", "libonnxruntime.so.1.24.4", "onnxruntime.dll"] {
        assert!(is_library(name), "{name}");
    }
    assert!(is_library("libonnxruntime.1.24.4.dylib"));
    assert!(!is_library("libonnxruntime_providers_shared.so"));
    assert!(!is_library("onnxruntime.lib"));
}

#[test]
fn a_process_has_one_onnx_runtime() {
    let Some(runtime) = onnxruntime() else { return };
    assert!(runtime.describe().starts_with("ONNX Runtime"), "{}", runtime.describe());
    let again = onnxruntime().unwrap();
    assert_eq!(again.describe(), runtime.describe());
    // Another file of the same library would be a second one.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("libonnxruntime.so");
    std::fs::copy(std::env::var_os("ORT_DYLIB_PATH").unwrap(), &copy).unwrap();
    let options = RuntimeOptions { library: Some(copy), ..RuntimeOptions::default() };
    assert!(Runtime::open(&options).unwrap_err().to_string().contains("already loaded"));
}

#[test]
fn cuda_that_is_not_there() {
    let Some(library) = std::env::var_os("ORT_DYLIB_PATH") else { return };
    let options = RuntimeOptions {
        library: Some(library.into()),
        cuda: Some(200),
        ..RuntimeOptions::default()
    };
    assert!(Runtime::open(&options).unwrap().describe().contains("CPU"));
    let options = RuntimeOptions { engine: EngineChoice::OnnxRuntime, ..options };
    let error = Runtime::open(&options).unwrap_err().to_string();
    assert!(error.contains("CUDA device 200"), "{error}");
}
