//! From text to frames of codes: the talker and the code predictor.
//!
//! A frame is 80 ms of speech as a few codes (16 in the published models). The *talker*, a Qwen3 decoder that is fed
//! rows, makes the first of them; the *code predictor*, a smaller one, makes the others. The frame's codes, each looked
//! up in an embedding of its own, and the next token of the text are added up to the talker's next row.
//!
//! [`prompt`] is what the talker is fed before the first frame, [`frames`] the loop after it. Both follow qwen_tts'
//! `core/models/modeling_qwen3_tts.py`.

mod forced;
pub mod frames;
mod predictor;
pub mod prompt;
mod rows;

use std::path::Path;
use std::sync::Arc;

pub use forced::Forced;
pub use frames::Frames;
pub use prompt::{PromptSpec, Reference, TextFeed, TextLayout, TextToken};

use mk_model::checkpoint::{Layout, TensorFiles, shape_problems};
use mk_model::{Error as ModelError, Model, ModelOptions, Problem};

use crate::config::TtsConfig;
use crate::error::Result;
use predictor::Predictor;
use rows::Rows;

/// The talker and the code predictor of a checkpoint, loaded. Cloning shares the weights.
#[derive(Clone)]
pub struct Talker {
    inner: Arc<Inner>,
}

struct Inner {
    config: TtsConfig,
    model: Model,
    predictor: Predictor,
    rows: Rows,
}

impl Talker {
    /// Loads both decoders and what leads into them. `dir` is named in errors.
    ///
    /// # Errors
    /// Every tensor that is missing, of another shape or not finite, at once; a device that is not there.
    pub fn load(
        dir: &Path,
        config: &TtsConfig,
        tensors: &TensorFiles,
        options: &ModelOptions,
    ) -> Result<Self> {
        let mut problems = shape_problems(&rows::expected(config), tensors);
        problems.extend(shape_problems(&predictor::expected(config), tensors));
        let layout = Layout {
            prefix: "talker.model.".into(),
            embedding: None,
            heads: vec!["talker.codec_head.weight".into()],
        };
        let talker = Model::load_part(dir, &config.talker, &layout, tensors, options);
        let layout = predictor::layout(config);
        let predictor = Model::load_part(dir, &config.predictor, &layout, tensors, options);
        let (model, predictor) = match (talker, predictor) {
            (Ok(talker), Ok(predictor)) if problems.is_empty() => (talker, predictor),
            (talker, predictor) => {
                for result in [talker, predictor] {
                    problems.extend(problems_of(result)?);
                }
                return Err(ModelError::Checkpoint { path: dir.into(), problems }.into());
            }
        };
        let rows = Rows::new(config, tensors, &model)?;
        let predictor = Predictor::new(config, tensors, predictor)?;
        let inner = Inner { config: config.clone(), model, predictor, rows };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The checkpoint's configuration.
    pub fn config(&self) -> &TtsConfig {
        &self.inner.config
    }

    /// What the decoders run on, for people.
    pub fn describe(&self) -> String {
        self.inner.model.describe()
    }

    fn model(&self) -> &Model {
        &self.inner.model
    }

    fn predictor(&self) -> &Predictor {
        &self.inner.predictor
    }

    fn rows(&self) -> &Rows {
        &self.inner.rows
    }
}

impl std::fmt::Debug for Talker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Talker").field("on", &self.describe()).finish_non_exhaustive()
    }
}

/// What is wrong with the checkpoint by this result; other errors stay errors.
fn problems_of(result: mk_model::Result<Model>) -> Result<Vec<Problem>> {
    match result {
        Ok(_) => Ok(Vec::new()),
        Err(ModelError::Checkpoint { problems, .. }) => Ok(problems),
        Err(error) => Err(error.into()),
    }
}
