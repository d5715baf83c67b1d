//! Checkpoints by their name on the Hugging Face hub: downloaded once, then read from the cache.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::{Progress, parse_index, read_text};
use crate::error::{Error, Result};

/// Where and how to fetch. The library reads no environment variables; programs fill this in from theirs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HubOptions {
    /// Branch, tag or commit; `main` if `None`.
    pub revision: Option<String>,
    /// The hub's cache folder (`…/hub`); the hub client's default if `None`.
    pub cache_dir: Option<PathBuf>,
    /// Use only what the cache holds.
    pub offline: bool,
    /// Access token for gated or private repositories.
    pub token: Option<String>,
    /// Another server that speaks the hub's protocol.
    pub endpoint: Option<String>,
}

impl HubOptions {
    /// What the hub's own tools read from the environment: `HF_HUB_CACHE` or `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT`,
    /// `HF_HUB_OFFLINE`. The program hands in how to look a variable up.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let home = var("HF_HOME").map(|home| PathBuf::from(home).join("hub"));
        Self {
            revision: None,
            cache_dir: var("HF_HUB_CACHE").map(PathBuf::from).or(home),
            offline: var("HF_HUB_OFFLINE")
                .is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str())),
            token: var("HF_TOKEN"),
            endpoint: var("HF_ENDPOINT"),
        }
    }
}

/// The files a checkpoint must have, before its weights.
const REQUIRED: [&str; 1] = ["config.json"];
/// Files that some repositories lack.
const OPTIONAL: [&str; 6] = [
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
];
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A directory with the checkpoint `source`: itself if it is a directory, else the hub repository `owner/name`,
/// from the cache where it is there and downloaded (or a broken download resumed) where it is not.
///
/// # Errors
/// [`Error::Hub`] names the repository, the file and what the hub client said; also for text that is neither a
/// directory nor a repository's name.
pub fn locate(
    source: &str,
    options: &HubOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf> {
    let dir = Path::new(source);
    if dir.is_dir() {
        return Ok(dir.into());
    }
    let fetcher = Fetcher::new(source, options)?;
    let mut config = PathBuf::new();
    for file in REQUIRED {
        config = fetcher.fetch(file, progress)?;
    }
    for file in OPTIONAL {
        fetcher.fetch_optional(file, progress)?;
    }
    if fetcher.fetch_optional(SINGLE, progress)?.is_none() {
        let index = fetcher.fetch(INDEX, progress)?;
        let weight_map = parse_index(&read_text(&index)?)
            .map_err(|reason| Error::Json { path: index.clone(), reason })?;
        let mut shards: Vec<&String> = weight_map.values().collect();
        shards.sort();
        shards.dedup();
        for shard in shards {
            fetcher.fetch(shard, progress)?;
        }
    }
    Ok(config.parent().map(Path::to_path_buf).unwrap_or_default())
}

struct Fetcher {
    name: String,
    cache: Cache,
    repo: Repo,
    /// `None` offline.
    api: Option<ApiRepo>,
}

impl Fetcher {
    fn new(name: &str, options: &HubOptions) -> Result<Self> {
        let fail = |reason: String| Error::Hub { repo: name.into(), file: "-".into(), reason };
        let named = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        match name.split('/').collect::<Vec<_>>().as_slice() {
            [owner, repo] if named(owner) && named(repo) => {}
            _ => return Err(fail("neither a directory nor a repository (owner/name)".into())),
        }
        let revision = options.revision.clone().unwrap_or_else(|| "main".into());
        let repo = Repo::with_revision(name.into(), RepoType::Model, revision);
        let cache = match &options.cache_dir {
            // The hub client links files relative to each other and needs to know where they are for that.
            Some(dir) => Cache::new(std::path::absolute(dir).map_err(|e| fail(e.to_string()))?),
            None => Cache::default(),
        };
        let api = if options.offline {
            None
        } else {
            let mut builder = ApiBuilder::from_cache(cache.clone()).with_retries(3);
            if let Some(endpoint) = &options.endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            if options.token.is_some() {
                builder = builder.with_token(options.token.clone());
            }
            Some(builder.build().map_err(|e| fail(e.to_string()))?.repo(repo.clone()))
        };
        Ok(Self { name: name.into(), cache, repo, api })
    }

    fn fetch(&self, file: &str, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf> {
        if let Some(path) = self.cache.repo(self.repo.clone()).get(file) {
            return Ok(path);
        }
        let fail =
            |reason: String| Error::Hub { repo: self.name.clone(), file: file.into(), reason };
        let Some(api) = &self.api else {
            return Err(fail("not in the cache, and the hub may not be asked (offline)".into()));
        };
        let bar = Bar { file: file.into(), done: 0, total: 0, progress };
        api.download_with_progress(file, bar).map_err(|e| fail(e.to_string()))
    }

    /// `None` where the repository does not have the file.
    fn fetch_optional(
        &self,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<PathBuf>> {
        match self.fetch(file, progress) {
            Ok(path) => Ok(Some(path)),
            Err(Error::Hub { reason, .. }) if self.api.is_none() || reason.contains("404") => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Turns the hub client's progress calls into ours.
struct Bar<'a> {
    file: String,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl hf_hub::api::Progress for Bar<'_> {
    fn init(&mut self, size: usize, _file: &str) {
        (self.done, self.total) = (0, size as u64);
        self.update(0);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.progress)(Progress { what: &self.file, done: self.done, total: self.total });
    }

    fn finish(&mut self) {}
}
