//! From the flags of a program to a conversation: who listens, who thinks, who speaks.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use mk_doubles::{Doubles, DoublesOptions};
use mk_model::Checkpoint;
use mk_tts::config::ModelType;
use mk_tts::guard::GuardOptions;
use mk_tts::{SpeakOptions, Tts};
use mk_voice::llm::local::{LocalLlm, LocalOptions};
use mk_voice::llm::{Llm, OpenAi, OpenAiOptions};
use mk_voice::stt::Stt;
use mk_voice::stt::deepgram::{Deepgram, DeepgramOptions};
use mk_voice::text::Language;
use mk_voice::tts::{QwenTts, Tones, TonesOptions};
use mk_voice::{Secret, Voice, VoiceOptions};

use crate::{SpeechArgs, locate, locate_speech, synthetic_model, synthetic_speech_model};

/// Who listens, thinks and speaks in a conversation, and what it is like.
#[derive(Debug, Clone, clap::Args)]
pub struct VoiceArgs {
    /// What recognises speech; Flux where there is a key, else a double
    #[arg(long, value_enum)]
    stt: Option<SttArg>,
    /// Deepgram's key
    #[arg(long, env = "DEEPGRAM_API_KEY", hide_env_values = true, value_name = "KEY")]
    deepgram_key: Option<String>,
    /// Where Deepgram is
    #[arg(long, env = "DEEPGRAM_BASE_URL", default_value = "https://api.deepgram.com")]
    deepgram_url: String,
    /// What answers; OpenAI where there is a key or an address, else a double
    #[arg(long, value_enum)]
    llm: Option<LlmArg>,
    /// OpenAI's key; servers of one's own need none
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true, value_name = "KEY")]
    openai_key: Option<String>,
    /// Where OpenAI is, or any server that speaks as it does: Ollama, vLLM, Groq
    #[arg(long, env = "OPENAI_BASE_URL")]
    openai_url: Option<String>,
    /// The language model there
    #[arg(long, env = "OPENAI_MODEL", default_value = "gpt-4o-mini")]
    openai_model: String,
    /// With --llm local: a Qwen3 by its directory or hub id; a small random one is made if not given
    #[arg(long, value_name = "MODEL")]
    local_model: Option<String>,
    /// What speaks
    #[arg(long, value_enum, default_value_t = TtsArg::Qwen)]
    tts: TtsArg,
    /// A Qwen3-TTS by its directory or hub id; a small random one is made if not given, and its sound is noise
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    speech: SpeechArgs,
    /// One of the model's own voices; its first one if not given
    #[arg(long, conflicts_with = "voice_file")]
    voice: Option<String>,
    /// A cloned voice that `speak` has kept
    #[arg(long, value_name = "FILE")]
    voice_file: Option<PathBuf>,
    /// The language that is spoken, by its name or code
    #[arg(long, default_value = "english")]
    language: String,
    /// What the language model is told first
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// What is said when a client comes
    #[arg(long, value_name = "TEXT", default_value = "")]
    greeting: String,
    /// Answers begun before it is certain that the user has ended, a turn: quicker, and dearer
    #[arg(long, default_value_t = 0, value_name = "N")]
    eager: u32,
    /// Hear nothing while speaking, for loudspeakers without an echo canceller
    #[arg(long)]
    half_duplex: bool,
    /// Record every conversation in this folder
    #[arg(long, value_name = "DIR")]
    recordings: Option<PathBuf>,
}

/// A recogniser by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SttArg {
    /// Deepgram Flux, which finds the turns itself
    Flux,
    /// Deepgram Nova-3, with turns found by a local detector
    Nova,
    /// A double of Deepgram, which plays a script
    Double,
}

/// A language model by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LlmArg {
    /// OpenAI, or a server that speaks as it does
    Openai,
    /// A Qwen3 in this process
    Local,
    /// A double of OpenAI, which plays a script
    Double,
}

/// A voice by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TtsArg {
    /// Qwen3-TTS in this process
    Qwen,
    /// A tone for each word
    Tones,
}

impl VoiceArgs {
    /// Loads what is to be loaded. The doubles, where there are any, live as long as what is returned with the voice.
    ///
    /// # Errors
    /// What cannot be loaded; options that cannot be.
    pub async fn open(&self) -> Result<(Voice, Option<Doubles>)> {
        let language: Language = self.language.parse()?;
        let stt = self.stt.unwrap_or(match self.deepgram_key {
            Some(_) => SttArg::Flux,
            None => SttArg::Double,
        });
        let llm =
            self.llm.unwrap_or(match self.openai_key.is_some() || self.openai_url.is_some() {
                true => LlmArg::Openai,
                false => LlmArg::Double,
            });
        let doubles = match (stt, llm) {
            (SttArg::Double, _) | (_, LlmArg::Double) => {
                Some(Doubles::start(DoublesOptions::default()).await?)
            }
            _ => None,
        };
        let tts = self.open_tts()?;
        let voice = Voice::builder(
            self.open_stt(stt, doubles.as_ref(), language)?,
            self.open_llm(llm, doubles.as_ref())?,
            tts,
        );
        let voice = voice.options(self.options(language, self.notice(stt, llm))).build();
        Ok((voice, doubles))
    }

    fn open_stt(
        &self,
        stt: SttArg,
        doubles: Option<&Doubles>,
        language: Language,
    ) -> Result<Arc<dyn Stt>> {
        let mut options = DeepgramOptions {
            url: self.deepgram_url.clone(),
            eager_eot_threshold: (self.eager > 0).then_some(0.5),
            ..DeepgramOptions::default()
        };
        if let Some(code) = language.code() {
            options.language = code.into();
        }
        if let (SttArg::Double, Some(doubles)) = (stt, doubles) {
            options.url = doubles.deepgram_url();
            options.key = Secret::new("double");
        } else {
            let key = self.deepgram_key.as_deref();
            options.key = Secret::new(key.context("--stt flux and nova need DEEPGRAM_API_KEY")?);
        }
        let deepgram = match stt {
            SttArg::Nova => Deepgram::nova(options)?,
            SttArg::Flux | SttArg::Double => Deepgram::flux(options)?,
        };
        Ok(Arc::new(deepgram))
    }

    fn open_llm(&self, llm: LlmArg, doubles: Option<&Doubles>) -> Result<Arc<dyn Llm>> {
        let mut options = OpenAiOptions {
            model: self.openai_model.clone(),
            key: self.openai_key.as_deref().map(Secret::new),
            ..OpenAiOptions::default()
        };
        match (llm, doubles) {
            (LlmArg::Local, _) => return self.open_local(),
            (LlmArg::Double, Some(doubles)) => {
                options.base_url = doubles.openai_url();
                options.key = None;
            }
            _ => {
                if let Some(url) = &self.openai_url {
                    options.base_url = url.clone();
                }
                if options.key.is_none() && self.openai_url.is_none() {
                    bail!(
                        "--llm openai needs OPENAI_API_KEY, or OPENAI_BASE_URL for a server of one's own"
                    );
                }
            }
        }
        Ok(Arc::new(OpenAi::new(options)?))
    }

    fn open_local(&self) -> Result<Arc<dyn Llm>> {
        let dir = match &self.local_model {
            Some(model) => locate(model)?,
            None => synthetic_model()?,
        };
        let checkpoint = Checkpoint::open(&dir)?;
        let model = self.speech.load.load(&checkpoint)?;
        Ok(Arc::new(LocalLlm::new(model, &checkpoint, LocalOptions::default())?))
    }

    fn open_tts(&self) -> Result<Arc<dyn mk_voice::tts::Tts>> {
        if self.tts == TtsArg::Tones {
            return Ok(Arc::new(Tones::new(TonesOptions::default())));
        }
        let dir = match &self.model {
            Some(model) => locate_speech(model)?,
            None => synthetic_speech_model(ModelType::CustomVoice)?,
        };
        let tts = self.speech.load(&dir)?;
        let voice = self.speaker(&tts)?;
        // What a model of random weights says has no end.
        let most = self.model.is_none().then_some(40);
        let options = SpeakOptions {
            language: self.language.parse::<Language>()?.to_string(),
            guard: GuardOptions { max_frames: most, ..GuardOptions::default() },
            ..SpeakOptions::default()
        };
        let tts = QwenTts::new(tts, voice, options)?;
        tts.warm_up()?;
        Ok(Arc::new(tts))
    }

    fn speaker(&self, tts: &Tts) -> Result<mk_tts::Voice> {
        if let Some(file) = &self.voice_file {
            return Ok(tts.load_voice(file)?);
        }
        match self.voice.as_deref().or_else(|| tts.voices().next()) {
            Some(name) => Ok(tts.voice(name)?),
            None => bail!("this model has no voices of its own: give it one with --voice-file"),
        }
    }

    fn options(&self, language: Language, notice: String) -> VoiceOptions {
        let mut options =
            VoiceOptions { recordings: self.recordings.clone(), notice, ..VoiceOptions::default() };
        options.turn.language = language;
        options.turn.greeting = self.greeting.clone();
        options.turn.eager_answers = self.eager;
        options.turn.barge_in.enabled = !self.half_duplex;
        if let Some(system) = &self.system {
            options.turn.system = system.clone();
        }
        options
    }

    /// What is not what it will be with keys and a model.
    fn notice(&self, stt: SttArg, llm: LlmArg) -> String {
        let mut notices = Vec::new();
        if stt == SttArg::Double {
            notices.push(
                "No DEEPGRAM_API_KEY: a double listens. It does not recognise words, it answers any speech with the next \
                 line of a script.",
            );
        }
        match llm {
            LlmArg::Double => notices
                .push("No OPENAI_API_KEY: a double thinks. It gives the next line of a script."),
            LlmArg::Local if self.local_model.is_none() => {
                notices.push("No --local-model: the language model has random weights.");
            }
            _ => {}
        }
        match self.tts {
            TtsArg::Qwen if self.model.is_none() => {
                notices.push("No --model: the voice has random weights, and its sound is noise.");
            }
            TtsArg::Tones => notices.push("The voice is a tone for each word."),
            TtsArg::Qwen => {}
        }
        notices.join(" ")
    }
}
