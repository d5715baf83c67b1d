//! Conversations with doubles: real sockets, scripted answers, and a voice that costs nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use mk_doubles::Doubles;
use mk_examples::repo_root;
use mk_voice::client::file::{self, FileOptions, Speech};
use mk_voice::llm::{OpenAi, OpenAiOptions};
use mk_voice::protocol::TurnReport;
use mk_voice::stt::deepgram::{Deepgram, DeepgramOptions, DeepgramOptionsError};
use mk_voice::tts::{Tones, TonesOptions};
use mk_voice::{Secret, Voice, VoiceOptions};

/// What the user says.
const QUESTION: &str = "examples/audio/question.wav";

/// Makes a recogniser: [`Deepgram::flux`] or [`Deepgram::nova`].
type Recogniser = fn(DeepgramOptions) -> Result<Deepgram, DeepgramOptionsError>;

/// A voice loop whose services are `doubles`.
pub fn voice(doubles: &Doubles, recogniser: Recogniser) -> Result<Voice> {
    let key = Secret::new("double");
    let stt = DeepgramOptions { url: doubles.deepgram_url(), key, ..DeepgramOptions::default() };
    let llm = OpenAiOptions { base_url: doubles.openai_url(), ..OpenAiOptions::default() };
    let tones = TonesOptions { character: Duration::from_millis(20), ..TonesOptions::default() };
    let parts = (recogniser(stt)?, OpenAi::new(llm)?, Tones::new(tones));
    let builder = Voice::builder(Arc::new(parts.0), Arc::new(parts.1), Arc::new(parts.2));
    Ok(builder.options(VoiceOptions::default()).build())
}

/// The question, asked so many times with `pause` after each.
pub fn questions(count: usize, pause: Duration) -> Result<Speech> {
    let path = repo_root()?.join(QUESTION);
    let one = Speech::read(&path).context("the question that comes with the examples")?;
    let silence = vec![0; (pause.as_secs_f64() * f64::from(one.sample_rate)) as usize];
    let samples = [one.samples, silence].concat().repeat(count);
    Ok(Speech { sample_rate: one.sample_rate, samples })
}

/// Has a conversation, which is over when all has been quiet for `quiet`.
pub async fn converse(voice: &Voice, speech: &Speech, quiet: Duration) -> Result<Vec<TurnReport>> {
    let options = FileOptions { quiet, most: Duration::from_secs(60) };
    Ok(file::converse(voice.start(), speech, &options, |_| ()).await?)
}
