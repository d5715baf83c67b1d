//! The page with a session that answers with tones.

#[path = "../tests/echo/mod.rs"]
mod echo;

use std::sync::Arc;

use mk_voice::metrics::Metrics;
use mk_voice::server::{Server, ServerOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bind = std::env::args().nth(1).unwrap_or("127.0.0.1:7860".to_owned()).parse()?;
    let options = ServerOptions { bind, ..ServerOptions::default() };
    let server = Server::bind(options, Arc::new(Metrics::new()), echo::start).await?;
    println!("http://{}", server.address());
    server.serve(async { _ = tokio::signal::ctrl_c().await }).await?;
    Ok(())
}
