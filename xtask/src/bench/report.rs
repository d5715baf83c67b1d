//! The figures of a run, as a table or as JSON.

use serde::{Deserialize, Serialize};

/// Decoding with `position` positions in the cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decode {
    pub position: usize,
    pub ms_per_tok: f64,
    /// The mean, where the engine says: with what only some tokens pay for, such as the launches of a GPU.
    #[serde(default)]
    pub mean_ms: Option<f64>,
    pub tok_s: f64,
}

/// Running a prompt from an empty cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prefill {
    pub tokens: usize,
    pub ms: f64,
    pub tok_s: f64,
}

/// What one engine measured; also what a peer's script prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Engine {
    /// Its name.
    pub peer: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub dtype: String,
    #[serde(default)]
    pub notes: String,
    pub decode: Vec<Decode>,
    pub prefill: Vec<Prefill>,
}

/// Everything one `cargo xtask bench` found.
#[derive(Debug, Serialize)]
pub struct Report {
    pub model: String,
    pub threads: usize,
    /// Bytes a second, measured in the same run.
    pub read_bandwidth: f64,
    /// Weight bytes that every token must read.
    pub weight_bytes: u64,
    /// Cache bytes that each position adds to that.
    pub kv_bytes_per_position: u64,
    /// Memory of the process that no file backs, in bytes, after our runs: cache, activations, everything but the
    /// mapped weights.
    pub own_memory_bytes: Option<u64>,
    /// Share of the processors that other programs, or other guests of the host, used meanwhile.
    pub used_by_others: Option<f64>,
    /// Ours first.
    pub engines: Vec<Engine>,
}

impl Report {
    fn bytes(&self, position: usize) -> f64 {
        (self.weight_bytes + self.kv_bytes_per_position * position as u64) as f64
    }

    /// Prints the tables.
    pub fn print(&self) {
        println!("model            {}", self.model);
        println!("threads          {}", self.threads);
        println!("memory read      {:.2} GB/s, measured in this run", self.read_bandwidth / 1e9);
        println!("floor of a token {:.3} GB of weights", self.weight_bytes as f64 / 1e9);
        if let Some(bytes) = self.own_memory_bytes {
            println!("own memory       {:.3} GB beside the mapped weights", bytes as f64 / 1e9);
        }
        if let Some(share) = self.used_by_others {
            println!("used by others   {:.0}% of the processors, meanwhile", 100.0 * share);
        }
        for engine in &self.engines {
            println!("{:<16} {} {} {}", engine.peer, engine.version, engine.dtype, engine.notes);
        }
        println!(
            "\n| Backend | position | tok/s | ms/tok | mean | GB/s | % of the floor | mk is faster by |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        let mut rows = Vec::new();
        for (i, engine) in self.engines.iter().enumerate() {
            for row in &engine.decode {
                rows.push((row.position, i, engine, row));
            }
        }
        rows.sort_by_key(|(position, i, _, _)| (*position, *i));
        for (position, i, engine, row) in rows {
            let rate = self.bytes(position) / (row.ms_per_tok / 1e3);
            let ours = self.engines[0].decode.iter().find(|r| r.position == position);
            let ratio = ratio(i, ours.map(|r| r.tok_s), row.tok_s);
            let mean = row.mean_ms.map(|ms| format!("{ms:.3}")).unwrap_or_default();
            println!(
                "| {} | {position} | {:.2} | {:.3} | {mean} | {:.2} | {:.0}% | {ratio} |",
                engine.peer,
                row.tok_s,
                row.ms_per_tok,
                rate / 1e9,
                100.0 * rate / self.read_bandwidth,
            );
        }
        println!("\n| Backend | prompt | ms | tok/s | mk is faster by |\n|---|---|---|---|---|");
        let mut rows = Vec::new();
        for (i, engine) in self.engines.iter().enumerate() {
            for row in &engine.prefill {
                rows.push((row.tokens, i, engine, row));
            }
        }
        rows.sort_by_key(|(tokens, i, _, _)| (*tokens, *i));
        for (tokens, i, engine, row) in rows {
            let ours = self.engines[0].prefill.iter().find(|r| r.tokens == tokens);
            let ratio = ratio(i, ours.map(|r| r.tok_s), row.tok_s);
            println!("| {} | {tokens} | {:.2} | {:.1} | {ratio} |", engine.peer, row.ms, row.tok_s);
        }
    }
}

/// How much faster ours is than a peer's rate; nothing beside our own rows.
fn ratio(engine: usize, ours: Option<f64>, theirs: f64) -> String {
    match ours {
        Some(ours) if engine > 0 => format!("{:.2}x", ours / theirs),
        _ => String::new(),
    }
}
