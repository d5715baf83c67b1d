//! Checkpoints by their name on the Hugging Face hub: downloaded once, then read from the cache.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
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
    /// Files in folders of the repository (`speech_tokenizer/config.json`) that the model has besides its checkpoint.
    pub also: Vec<String>,
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
            also: Vec::new(),
        }
    }
}

/// What says what the model is; no checkpoint is without it.
const CONFIG: &str = "config.json";
/// Files that some repositories lack.
const OPTIONAL: [&str; 3] =
    ["generation_config.json", "tokenizer_config.json", "chat_template.jinja"];
const TOKENIZER: &str = "tokenizer.json";
/// What a tokenizer is made of where there is no `tokenizer.json`.
const TOKENIZER_PARTS: [&str; 2] = ["vocab.json", "merges.txt"];
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A directory with the checkpoint `source`: itself if it is a directory, else the hub repository `owner/name`,
/// from the cache where it is there and downloaded (or a broken download resumed) where it is not. What the cache
/// holds whole is used without a request, also where the hub has a newer version.
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
    // A branch may have moved since the cache was filled, or while we fill it: files then come from two commits, which
    // the cache keeps in two directories. Starting again completes the newer one.
    for _ in 0..3 {
        let files = fetcher.fetch_all(progress)?;
        let mut dirs = files.iter().filter_map(|file| file.parent());
        if let Some(dir) = dirs.next()
            && dirs.all(|other| other == dir)
        {
            return Ok(dir.into());
        }
    }
    Err(fetcher.failed(CONFIG, "the repository changed while it was downloaded; try again".into()))
}

struct Fetcher {
    name: String,
    cache: Cache,
    repo: Repo,
    /// `None` offline.
    api: Option<Api>,
    also: Vec<String>,
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
        // It becomes part of paths in the cache.
        let mut parts = Path::new(&revision).components();
        if revision.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
            return Err(fail(format!("{revision:?} is not a revision: a branch, tag or commit")));
        }
        let repo = Repo::with_revision(name.into(), RepoType::Model, revision);
        let cache_dir = match &options.cache_dir {
            // The hub client links files relative to each other and needs to know where they are for that.
            Some(dir) => std::path::absolute(dir).map_err(|e| fail(e.to_string()))?,
            // As `Cache::default`, which panics where there is no home.
            None => std::env::home_dir()
                .ok_or_else(|| fail("no home directory to keep a cache in: name one".into()))?
                .join(".cache/huggingface/hub"),
        };
        let cache = Cache::new(cache_dir);
        let api = if options.offline {
            None
        } else {
            // No retries of its own: the hub client takes a position for them that is wrong where a resumed download
            // fails before its first byte, and then appends the file's beginning to its middle.
            let mut builder = ApiBuilder::from_cache(cache.clone()).with_retries(0);
            if let Some(endpoint) = &options.endpoint {
                builder = builder.with_endpoint(endpoint.trim_end_matches('/').into());
            }
            if options.token.is_some() {
                builder = builder.with_token(options.token.clone());
            }
            Some(builder.build().map_err(|e| fail(e.to_string()))?)
        };
        Ok(Self { name: name.into(), cache, repo, api, also: options.also.clone() })
    }

    /// All files that loading may want.
    fn fetch_all(&self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Vec<PathBuf>> {
        let mut files = vec![self.fetch(CONFIG, progress)?];
        for file in OPTIONAL {
            files.extend(self.fetch_optional(file, progress)?);
        }
        match self.fetch_optional(TOKENIZER, progress)? {
            Some(tokenizer) => files.push(tokenizer),
            None => {
                for file in TOKENIZER_PARTS {
                    files.extend(self.fetch_optional(file, progress)?);
                }
            }
        }
        for file in &self.also {
            let path = self.fetch(file, progress)?;
            // In its place the folder that it is in, or the folder of that: what is beside the checkpoint's other files.
            let folders = Path::new(file).components().count() - 1;
            files.extend(path.ancestors().nth(folders).map(Into::into));
        }
        if let Some(weights) = self.fetch_optional(SINGLE, progress)? {
            files.push(weights);
            return Ok(files);
        }
        let Some(index) = self.fetch_optional(INDEX, progress)? else {
            return Err(self.failed(SINGLE, format!("{}, nor is {INDEX}", self.absence())));
        };
        let weight_map = parse_index(&read_text(&index)?)
            .map_err(|reason| Error::Json { path: index.clone(), reason })?;
        files.push(index);
        let shards: BTreeSet<&String> = weight_map.values().collect();
        for shard in shards {
            files.push(self.fetch(shard, progress)?);
        }
        Ok(files)
    }

    fn fetch(&self, file: &str, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf> {
        let found = self.find(file, progress)?;
        found.ok_or_else(|| self.failed(file, self.absence()))
    }

    /// `None` where the repository does not have the file, or, offline, the cache does not.
    fn fetch_optional(
        &self,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<PathBuf>> {
        if self.absence_marker(file).is_some_and(|marker| marker.exists()) {
            return Ok(None);
        }
        let found = self.find(file, progress)?;
        if found.is_none()
            && self.api.is_some()
            && let Some(marker) = self.absence_marker(file)
            && let Some(folder) = marker.parent()
        {
            // Where this fails, all it costs is the same request the next time.
            let _ = fs::create_dir_all(folder).and_then(|()| fs::write(&marker, ""));
        }
        Ok(found)
    }

    fn find(&self, file: &str, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Option<PathBuf>> {
        if let Some(path) = self.cache.repo(self.repo.clone()).get(file) {
            return Ok(Some(path));
        }
        match &self.api {
            Some(api) => self.download(api, file, progress),
            None => Ok(None),
        }
    }

    /// Where the hub's own tools note that a commit does not have a file, so as not to ask for it again. `None` while
    /// nothing of the repository is in the cache.
    fn absence_marker(&self, file: &str) -> Option<PathBuf> {
        let folder = self.cache.path().join(self.repo.folder_name());
        let commit = fs::read_to_string(folder.join("refs").join(self.repo.revision())).ok()?;
        Some(folder.join(".no_exist").join(commit.trim()).join(file))
    }

    /// Downloads a file, in several attempts as long as each gets further than the last; `None` where there is none.
    fn download(
        &self,
        api: &Api,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<PathBuf>> {
        let repo = api.repo(self.repo.clone());
        let mut bar = Bar { file, done: 0, total: 0, progress };
        let (mut furthest, mut mended) = (0, false);
        loop {
            bar.done = 0;
            // The hub client panics on redirects that lack their target.
            let attempt = AssertUnwindSafe(|| repo.download_with_progress(file, &mut bar));
            let attempt = catch_unwind(attempt)
                .map_err(|_| self.failed(file, "an answer the hub client cannot read".into()))?;
            match attempt {
                Ok(path) => {
                    let size = fs::metadata(&path).map_or(0, |file| file.len());
                    if size == bar.total {
                        return Ok(Some(path));
                    }
                    // The hub client does not check. A server that sends all of a file when asked for its rest makes
                    // it too long, a connection that breaks unnoticed too short.
                    discard(&path);
                    if mended {
                        let reason = format!("got {size} bytes, expected {}", bar.total);
                        return Err(self.failed(file, reason));
                    }
                    mended = true;
                }
                Err(error) => match status(&error) {
                    Some(404) => return Ok(None),
                    Some(416) if !mended => mended = self.mend_part(api, &repo.url(file)),
                    None if matches!(error, ApiError::InvalidResume) && !mended => {
                        mended = self.mend_part(api, &repo.url(file));
                    }
                    None if bar.done > furthest => furthest = bar.done,
                    status => return Err(self.failed(file, explain(&error, status))),
                },
            }
        }
    }

    /// Makes what is there of a download one that can be resumed: whether it is whole but was not renamed, in which
    /// case the hub has no rest to send, or longer than the file, in which case it is none of it. Always true, so that
    /// this is tried once.
    fn mend_part(&self, api: &Api, url: &str) -> bool {
        if let Ok(metadata) = api.metadata(url) {
            let blob = self.cache.repo(self.repo.clone()).blob_path(metadata.etag());
            let part = blob.with_extension("part");
            let size = metadata.size() as u64;
            let whole = size > 0 && fs::metadata(&part).is_ok_and(|part| part.len() == size);
            // Failing here means failing the next attempt, which says why.
            let _ = if whole {
                fs::File::options().write(true).open(&part).and_then(|part| part.set_len(size - 1))
            } else {
                fs::remove_file(&part)
            };
        }
        true
    }

    fn absence(&self) -> String {
        match self.api {
            Some(_) => format!(
                "not in the repository (revision {}), or there is no such repository (http status: 404)",
                self.repo.revision()
            ),
            None => "not in the cache, and the hub may not be asked (offline)".into(),
        }
    }

    fn failed(&self, file: &str, reason: String) -> Error {
        Error::Hub { repo: self.name.clone(), file: file.into(), reason }
    }
}

/// The HTTP status that an error is about. The hub client hands on its HTTP client's error as it is, whose type we
/// cannot name.
fn status(error: &ApiError) -> Option<u16> {
    let ApiError::RequestError(error) = error else { return None };
    error.to_string().strip_prefix("http status: ")?.parse().ok()
}

fn explain(error: &ApiError, status: Option<u16>) -> String {
    if let ApiError::LockAcquisition(_) = error {
        return format!("{error}: another process is downloading it");
    }
    match status {
        Some(401) => format!(
            "{error}: there is no such repository, or it opens only with an access token, or with another"
        ),
        Some(403) => {
            format!("{error}: this access token does not open it; ask for access on its page")
        }
        _ => error.to_string(),
    }
}

/// Removes a downloaded file from the cache, so that it is downloaded again.
fn discard(path: &Path) {
    // What cannot be removed is found to be broken again when it is read.
    if let Ok(blob) = fs::canonicalize(path) {
        let _ = fs::remove_file(blob);
    }
    let _ = fs::remove_file(path);
}

/// Turns the hub client's progress calls into ours.
struct Bar<'a> {
    file: &'a str,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl hf_hub::api::Progress for &mut Bar<'_> {
    fn init(&mut self, size: usize, _file: &str) {
        (self.done, self.total) = (0, size as u64);
        self.update(0);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.progress)(Progress { what: self.file, done: self.done, total: self.total });
    }

    fn finish(&mut self) {}
}
