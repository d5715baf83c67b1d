//! What can go wrong between a Qwen3-TTS checkpoint and a sample, each case with the thing it is about.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::ModelType;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure of this crate. Variants carry data, so that a caller can act on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the decoder says: checkpoints, tokenizers, devices, sampling.
    #[error(transparent)]
    Model(#[from] mk_model::Error),

    // === Files ===
    /// A file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    // === Text and prompt ===
    /// The tokenizer does not fit the prompt's layout.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What is wrong.
        reason: String,
    },
    /// A language that the model does not speak.
    #[error("unknown language {name:?}; there are {}", known.join(", "))]
    UnknownLanguage {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Live text in a layout that begins with the whole text.
    #[error("a live text can only be streamed: its layout cannot be Whole")]
    NotStreaming,
    /// Nothing of the text is left to speak.
    #[error("the text is empty: nothing but whitespace, control characters or special tokens")]
    EmptyText,
    /// Text was pushed that nobody reads any more.
    #[error("the speech that this text was for is over")]
    TextClosed,
    /// A live text was cancelled.
    #[error("the text was cancelled")]
    TextCancelled,
    /// A live text has neither gone on nor ended for too long.
    #[error("no text came for {timeout:?}, and it was not finished")]
    TextStalled {
        /// How long was waited.
        timeout: Duration,
    },

    // === Voices ===
    /// A voice that the model does not have.
    #[error("unknown voice {name:?}; there are {}", known.join(", "))]
    UnknownVoice {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A call that models of another type answer.
    #[error("{what} needs a model of type {expected}, this one is {found}")]
    WrongModel {
        /// What was asked for.
        what: &'static str,
        /// The type that has it.
        expected: ModelType,
        /// The model's.
        found: ModelType,
    },
    /// An instruction for a model that takes none.
    #[error(
        "this {model_type} model takes no instructions; the larger CustomVoice and VoiceDesign models do"
    )]
    NoInstructions {
        /// The model's type.
        model_type: ModelType,
    },
    /// A voice that was not cloned has nothing to keep in a file.
    #[error("only cloned voices can be saved to a file")]
    NotACloned,
    /// A file that holds no voice, or one of another model.
    #[error("{}: not a voice of this model: {reason}", path.display())]
    VoiceFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A speaker's vector of another model's width.
    #[error("the speaker's vector has {found} numbers, this model's are {expected} wide")]
    SpeakerWidth {
        /// Numbers of the vector.
        found: usize,
        /// Width of the talker.
        expected: usize,
    },
    /// A checkpoint that cannot clone voices, as only Base ones can.
    #[error("{}: has no speaker encoder; only Base checkpoints clone voices", dir.display())]
    NoSpeakerEncoder {
        /// The checkpoint's directory.
        dir: PathBuf,
    },

    // === Codec ===
    /// The checkpoint has no codec.
    #[error("{}: the checkpoint's codec is missing", path.display())]
    NoCodec {
        /// The folder that should be there.
        path: PathBuf,
    },
    /// Talker and codec of one checkpoint that do not fit each other.
    #[error("the codec has {found} codes a frame, the talker {expected}")]
    CodecMismatch {
        /// By the codec's config.
        found: usize,
        /// By the talker's.
        expected: usize,
    },
    /// An id that an embedding has no row for.
    #[error("{tensor} has {rows} rows, none for id {id}")]
    NoSuchRow {
        /// The embedding.
        tensor: String,
        /// The id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// Codes that are not whole frames.
    #[error("{found} codes are not whole frames of {groups}")]
    NotWholeFrames {
        /// Codes handed in.
        found: usize,
        /// Codes of a frame.
        groups: usize,
    },
    /// A code that its codebook has no entry for.
    #[error("code {code} of group {group} in frame {frame} is out of range: there are {size}")]
    CodeOutOfRange {
        /// The frame, from the beginning of the stream.
        frame: u64,
        /// The group.
        group: usize,
        /// The code.
        code: u32,
        /// Entries of a codebook.
        size: usize,
    },
    /// The decoder gave a sample that is NaN or infinite.
    #[error("the codec's sample in frame {frame} is not a finite number")]
    SampleNotFinite {
        /// The frame, from the beginning of the stream.
        frame: u64,
    },

    // === Running ONNX graphs ===
    /// ONNX Runtime is demanded, and its library is in none of the folders.
    #[error("no ONNX Runtime library found in {searched}; `cargo xtask setup --onnx` installs one")]
    NoOnnxRuntime {
        /// The folders that were looked in.
        searched: String,
    },
    /// A file that cannot serve as the ONNX Runtime library.
    #[error("{}: cannot be used as ONNX Runtime: {reason}", path.display())]
    OnnxRuntime {
        /// The library's file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// ONNX Runtime does not run on this CUDA device.
    #[error("ONNX Runtime on CUDA device {ordinal} is not available: {reason}")]
    Cuda {
        /// The device.
        ordinal: usize,
        /// What it said.
        reason: String,
    },
    /// An engine does not load or run a graph.
    #[error("{engine}: {graph}: {reason}")]
    Graph {
        /// The engine.
        engine: &'static str,
        /// The graph: its file, where it has one.
        graph: String,
        /// What the engine said.
        reason: String,
    },
    /// A tensor that is not what it is used as.
    #[error("a tensor cannot be used: {reason}")]
    Value {
        /// Why not.
        reason: String,
    },

    // === Audio ===
    /// A file that holds no sound we can decode, or broken sound.
    #[error("{name}: cannot be read as audio: {reason}")]
    AudioUnreadable {
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A container without a sound track.
    #[error("{name}: has no audio track")]
    AudioNoTrack {
        /// The file.
        name: String,
    },
    /// A sound file with no samples.
    #[error("{name}: holds no samples")]
    AudioEmpty {
        /// The file.
        name: String,
    },
    /// A sound file that ends before its header says.
    #[error("{name}: is cut off: {found} of {expected} samples are there")]
    AudioTruncated {
        /// The file.
        name: String,
        /// Samples of each channel that the header promises.
        expected: u64,
        /// Samples that are there.
        found: u64,
    },
    /// More sound than is taken from a file.
    #[error("{name}: is longer than {most} seconds")]
    AudioTooLong {
        /// The file.
        name: String,
        /// The limit in seconds.
        most: u32,
    },
    /// A sample that is NaN or infinite.
    #[error("{name}: sample {index} is not a number")]
    AudioNotFinite {
        /// The file, or what the samples are.
        name: String,
        /// Which sample, counted from 0.
        index: usize,
    },
    /// Sample rates that cannot be converted.
    #[error("cannot convert from {from} to {to} samples a second: {reason}")]
    SampleRate {
        /// Samples a second of what is there.
        from: u32,
        /// Samples a second of what is wanted.
        to: u32,
        /// Why not.
        reason: String,
    },
    /// More samples than a WAV file can hold.
    #[error("{}: a WAV file holds at most {most} bytes of samples", path.display())]
    WavFull {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        most: u64,
    },
    /// A reference that is too short to tell a voice from.
    #[error("the reference lasts {seconds:.2} s; it takes at least {least} s to tell a voice from")]
    ReferenceTooShort {
        /// Its length.
        seconds: f64,
        /// The limit.
        least: f64,
    },
    /// A reference that would fill the talker's context.
    #[error(
        "the reference lasts {seconds:.1} s; at most {most} s are taken, and 3 to 15 s are best"
    )]
    ReferenceTooLong {
        /// Its length.
        seconds: f64,
        /// The limit.
        most: f64,
    },
    /// A reference in which nobody speaks.
    #[error("the reference is silent: its level is {db:.1} dB, and at least {least} dB is needed")]
    ReferenceSilent {
        /// Root mean square in dB of full scale.
        db: f64,
        /// The limit.
        least: f64,
    },
}
