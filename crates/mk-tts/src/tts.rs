//! A Qwen3-TTS model, loaded: its voices, and the way to speak.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use mk_model::checkpoint::TensorFiles;
use mk_model::text::Tokenizer;
use mk_model::{ModelOptions, Sequence};

use crate::audio::{Audio, check_reference};
use crate::codec::{CodecDecoder, CodecEncoder, CodecStream};
use crate::config::{ModelType, SpeechSampling, TtsConfig};
use crate::error::{Error, Result};
use crate::recent::Recent;
use crate::runtime::{Runtime, RuntimeOptions};
use crate::speaker::{SpeakerEncoder, mel};
use crate::talker::prompt::{self, PromptSpec, Reference, SpeakerRow};
use crate::talker::{Talker, TextLayout};
use crate::text::clean;
use crate::voice::{Cloned, Kind, Recording, Voice};

/// Folder of the codec in a checkpoint.
const CODEC: &str = "speech_tokenizer";
/// Voices, in a language each, whose beginnings are kept.
const KEPT_VOICES: usize = 16;

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct TtsOptions {
    /// What the two decoders run on, and with which numbers.
    pub model: ModelOptions,
    /// What the codec runs on.
    pub runtime: RuntimeOptions,
    /// Where the codec's graphs are kept if the checkpoint's own folder cannot be written.
    pub cache_dir: Option<PathBuf>,
}

/// A loaded model. Cloning shares the weights; any number of speeches run at once.
#[derive(Clone)]
pub struct Tts {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    config: TtsConfig,
    sampling: SpeechSampling,
    tokenizer: Tokenizer,
    role: Vec<u32>,
    talker: Talker,
    codec: CodecDecoder,
    runtime: Runtime,
    cache_dir: Option<PathBuf>,
    tensors: TensorFiles,
    /// Only cloning needs them.
    encoders: OnceLock<Encoders>,
    prefixes: Mutex<Recent<PrefixKey, Arc<Mutex<Sequence>>>>,
    primed: Mutex<Recent<blake3::Hash, CodecStream>>,
}

/// What lets a voice be cloned.
struct Encoders {
    speaker: SpeakerEncoder,
    codec: CodecEncoder,
}

/// What the rows before the text depend on.
#[derive(Clone, Copy, PartialEq)]
struct PrefixKey {
    voice: blake3::Hash,
    language: Option<u32>,
    layout: TextLayout,
}

impl Tts {
    /// Loads the checkpoint in `dir`. The codec's graph is written the first time, which takes some seconds.
    ///
    /// # Errors
    /// Files that are missing or broken, everything about the tensors that does not fit, devices and libraries that are
    /// not there.
    pub fn load(dir: impl AsRef<Path>, options: &TtsOptions) -> Result<Self> {
        let dir = dir.as_ref();
        let config = TtsConfig::open(dir)?;
        let sampling = SpeechSampling::open(dir)?;
        let tokenizer = Tokenizer::from_dir(dir)?;
        if tokenizer.vocab_size() > config.text_vocab_size {
            let (ids, rows) = (tokenizer.vocab_size(), config.text_vocab_size);
            let reason = format!("has {ids} ids, the text embedding {rows} rows");
            return Err(Error::Tokenizer { reason });
        }
        let role = prompt::role_ids(&tokenizer)?;
        if !dir.join(CODEC).is_dir() {
            return Err(Error::NoCodec { path: dir.join(CODEC) });
        }
        let runtime = Runtime::open(&options.runtime)?;
        let tensors = TensorFiles::open(dir)?;
        let talker = Talker::load(dir, &config, &tensors, &options.model)?;
        let codec = CodecDecoder::open(&dir.join(CODEC), &runtime, options.cache_dir.as_deref())?;
        if codec.groups() != config.code_groups {
            let (found, expected) = (codec.groups(), config.code_groups);
            return Err(Error::CodecMismatch { found, expected });
        }
        let inner = Inner {
            dir: dir.into(),
            config,
            sampling,
            tokenizer,
            role,
            talker,
            codec,
            runtime,
            cache_dir: options.cache_dir.clone(),
            tensors,
            encoders: OnceLock::new(),
            prefixes: Mutex::new(Recent::new(KEPT_VOICES)),
            primed: Mutex::new(Recent::new(KEPT_VOICES)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the checkpoint says of itself.
    pub fn config(&self) -> &TtsConfig {
        &self.inner.config
    }

    /// The tokenizer of the text.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }

    /// How the checkpoint's makers suggest to sample.
    pub fn sampling(&self) -> &SpeechSampling {
        &self.inner.sampling
    }

    /// Samples a second of what is spoken.
    pub fn sample_rate(&self) -> u32 {
        self.inner.codec.sample_rate() as u32
    }

    /// Samples of one frame.
    pub fn samples_per_frame(&self) -> usize {
        self.inner.codec.samples_per_frame()
    }

    /// What the decoders and the codec run on, for people.
    pub fn describe(&self) -> String {
        format!("{}; codec: {}", self.inner.talker.describe(), self.inner.runtime.describe())
    }

    /// The talker and the code predictor, for those who go frame by frame.
    pub fn talker(&self) -> &Talker {
        &self.inner.talker
    }

    /// The codec's decoder.
    pub fn codec(&self) -> &CodecDecoder {
        &self.inner.codec
    }

    /// Names of the model's own voices; none for models that clone or design theirs.
    pub fn voices(&self) -> impl Iterator<Item = &str> {
        self.inner.config.speakers.keys().map(String::as_str)
    }

    /// Languages the model speaks; "auto" lets it find out.
    pub fn languages(&self) -> impl Iterator<Item = &str> {
        self.inner.config.language_names()
    }

    /// One of the model's own voices, by its name in upper or lower case.
    ///
    /// # Errors
    /// [`Error::WrongModel`] for a model that has none, [`Error::UnknownVoice`] with the names there are.
    pub fn voice(&self, name: &str) -> Result<Voice> {
        self.expect_type(ModelType::CustomVoice, "a voice by its name")?;
        let name = name.to_lowercase();
        let Some(speaker) = self.inner.config.speakers.get(&name).cloned() else {
            return Err(Error::UnknownVoice {
                name,
                known: self.voices().map(Into::into).collect(),
            });
        };
        Ok(Voice::new(Kind::Preset { name, speaker }, String::new()))
    }

    /// A voice to a description, such as "a calm, low voice of an old man".
    ///
    /// # Errors
    /// [`Error::WrongModel`] for models that do not design voices.
    pub fn design_voice(&self, description: &str) -> Result<Voice> {
        self.expect_type(ModelType::VoiceDesign, "a voice to a description")?;
        Ok(Voice::new(Kind::Described, description.trim().into()))
    }

    /// The voice of a recording. With `text`, what is said in it, the talker continues the recording (in-context learning), which
    /// sounds more like it; without, it is given a vector of the voice alone, and begins to speak sooner.
    ///
    /// # Errors
    /// [`Error::WrongModel`] for models that do not clone; a recording that is too short, too long or silent; a text
    /// that is empty.
    pub fn clone_voice(&self, recording: &Audio, text: Option<&str>) -> Result<Voice> {
        self.expect_type(ModelType::Base, "the clone of a voice")?;
        check_reference(recording)?;
        let encoders = self.encoders()?;
        let vector = encoders.speaker.embed(&recording.resample(mel::SAMPLE_RATE)?.samples)?;
        let recording = match text {
            None => None,
            Some(text) => {
                let text = clean(&self.inner.tokenizer, text)?.text;
                let samples = recording.resample(encoders.codec.sample_rate() as u32)?.samples;
                let codes = encoders.codec.encode(&samples)?;
                let frames = codes.chunks(self.inner.config.code_groups).map(<[u32]>::to_vec);
                Some(Recording { text, frames: frames.collect() })
            }
        };
        Ok(Voice::new(Kind::Cloned(Cloned { vector, recording }), String::new()))
    }

    /// A cloned voice from its file.
    ///
    /// # Errors
    /// [`Error::WrongModel`] for models that do not clone; [`Error::VoiceFile`] for a file that is no voice, or one of
    /// another model.
    pub fn load_voice(&self, path: &Path) -> Result<Voice> {
        self.expect_type(ModelType::Base, "a cloned voice")?;
        let config = &self.inner.config;
        let codes = config.predictor.vocab_size;
        Voice::load(path, config.talker.hidden_size, config.code_groups, codes)
    }

    /// Computes what is kept of a voice in a language, so that the first speech begins as soon as the next.
    ///
    /// # Errors
    /// Those of [`Tts::speak`].
    pub fn warm_up(&self, voice: &Voice, language: &str, layout: TextLayout) -> Result<()> {
        let spec = self.prompt_spec(voice, language, layout)?;
        self.prefix(voice, &spec)?;
        self.codec_stream(voice)?;
        Ok(())
    }

    /// The layout of the text that qwen_tts takes by default: whole, but for cloned voices.
    pub fn default_layout(&self) -> TextLayout {
        match self.inner.config.model_type {
            ModelType::Base => TextLayout::Streaming,
            ModelType::CustomVoice | ModelType::VoiceDesign => TextLayout::Whole,
        }
    }

    /// What the prompt says of a voice and a language.
    ///
    /// # Errors
    /// A voice that another model made, an instruction that this one does not take, a language it does not speak.
    pub fn prompt_spec(
        &self,
        voice: &Voice,
        language: &str,
        layout: TextLayout,
    ) -> Result<PromptSpec> {
        let Inner { config, tokenizer, .. } = &*self.inner;
        if !voice.instruction().is_empty() && !config.takes_instructions {
            return Err(Error::NoInstructions { model_type: config.model_type });
        }
        let (speaker, reference, dialect) = match voice.kind() {
            Kind::Preset { name, .. } => {
                self.expect_type(ModelType::CustomVoice, "a voice by its name")?;
                let known = || self.voices().map(Into::into).collect();
                let speaker = config.speakers.get(name);
                let speaker = speaker
                    .ok_or_else(|| Error::UnknownVoice { name: name.clone(), known: known() })?;
                (SpeakerRow::Id(speaker.id), None, speaker.dialect.as_deref())
            }
            Kind::Cloned(Cloned { vector, recording }) => {
                self.expect_type(ModelType::Base, "a cloned voice")?;
                let reference = recording.as_ref().map(|recording| {
                    let text = tokenizer.encode_plain(&recording.text)?;
                    Ok::<_, Error>(Reference { text, codes: recording.frames.concat() })
                });
                (SpeakerRow::Vector(vector.clone()), reference.transpose()?, None)
            }
            Kind::Described => {
                self.expect_type(ModelType::VoiceDesign, "a described voice")?;
                (SpeakerRow::None, None, None)
            }
        };
        Ok(PromptSpec {
            instruction: prompt::instruction_ids(tokenizer, voice.instruction())?,
            language: prompt::language_id(config, language, dialect)?,
            speaker,
            reference,
            layout,
        })
    }

    /// A talker sequence that holds the rows before the text: computed once for a voice, a language and a layout.
    ///
    /// # Errors
    /// Those of the decoder.
    pub fn prefix(&self, voice: &Voice, spec: &PromptSpec) -> Result<Sequence> {
        let Inner { talker, role, prefixes, .. } = &*self.inner;
        let key = PrefixKey { voice: voice.id(), language: spec.language, layout: spec.layout };
        let kept = lock(prefixes).get(&key);
        let sequence = match kept {
            Some(sequence) => sequence,
            None => {
                // Computed outside the lock: two speeches that begin at once may both do it.
                let sequence = talker.sequence(&talker.prefix(role, spec)?)?;
                let sequence = Arc::new(Mutex::new(sequence));
                lock(prefixes).insert(key, Arc::clone(&sequence));
                sequence
            }
        };
        let fork = lock(&sequence).fork()?;
        Ok(fork)
    }

    /// A codec stream in which a cloned voice has spoken its recording.
    pub(crate) fn codec_stream(&self, voice: &Voice) -> Result<CodecStream> {
        let Inner { codec, primed, .. } = &*self.inner;
        let Kind::Cloned(Cloned { recording: Some(recording), .. }) = voice.kind() else {
            return Ok(codec.new_stream());
        };
        if let Some(stream) = lock(primed).get(&voice.id()) {
            return Ok(stream);
        }
        let mut stream = codec.new_stream();
        stream.decode(&recording.frames.concat())?;
        lock(primed).insert(voice.id(), stream.clone());
        Ok(stream)
    }

    fn encoders(&self) -> Result<&Encoders> {
        let Inner { dir, tensors, runtime, cache_dir, encoders, .. } = &*self.inner;
        if let Some(encoders) = encoders.get() {
            return Ok(encoders);
        }
        let made = Encoders {
            speaker: SpeakerEncoder::open(dir, tensors, runtime)?,
            codec: CodecEncoder::open(&dir.join(CODEC), runtime, cache_dir.as_deref())?,
        };
        Ok(encoders.get_or_init(|| made))
    }

    fn expect_type(&self, expected: ModelType, what: &'static str) -> Result<()> {
        let found = self.inner.config.model_type;
        if found == expected { Ok(()) } else { Err(Error::WrongModel { what, expected, found }) }
    }
}

impl std::fmt::Debug for Tts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tts")
            .field("dir", &self.inner.dir)
            .field("on", &self.describe())
            .finish_non_exhaustive()
    }
}

/// What is behind these locks is whole at any time, whatever a thread that held one came to.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
