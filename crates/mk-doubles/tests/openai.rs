//! An SDK of OpenAI's interface understands the doubles.

use std::time::Duration;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use mk_doubles::script::{DeltaSize, Usage};
use mk_doubles::{ChatScript, Doubles, DoublesOptions, Reply};

#[tokio::test]
async fn placeholder() {
    let _ = (Duration::ZERO, DeltaSize::default());
    let _: Option<(Client<OpenAIConfig>, Usage, Reply, ChatScript, Doubles, DoublesOptions)> = None;
}
