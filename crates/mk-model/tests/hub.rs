//! Checkpoints by name, from a hub on this machine: a server that answers as the Hugging Face hub does, and badly where
//! told to.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use common::{spec, written};
use mk_model::checkpoint::Progress;
use mk_model::checkpoint::hub::{HubOptions, locate};
use mk_model::synth::Spec;
use mk_model::{Checkpoint, Error, Model, ModelOptions};
use tempfile::TempDir;

const REPO: &str = "owner/tiny-404";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

// === The server ===

/// What the server has, and how it misbehaves.
#[derive(Default)]
struct Hub {
    files: BTreeMap<String, Vec<u8>>,
    revision: String,
    commit: String,
    /// Answered with a status instead of the file.
    statuses: BTreeMap<String, u16>,
    /// Sent to another address, as large files are.
    elsewhere: BTreeSet<String>,
    /// The next time this file's body is sent, the connection closes after so many bytes.
    breaks: Option<(String, usize)>,
    /// After that, connections that ask for a body are closed without an answer.
    dies: bool,
    dead: bool,
    ignores_ranges: bool,
    /// After this file was sent, this is the commit.
    moves: Option<(String, String)>,
    log: Vec<Request>,
}

#[derive(Debug, Clone, PartialEq)]
struct Request {
    file: String,
    /// First byte asked for; `None` for a request that wants to know of the file, not to have it.
    from: Option<usize>,
    token: Option<String>,
}

impl Hub {
    fn serve(&mut self, stream: &mut TcpStream, address: SocketAddr) -> std::io::Result<()> {
        let Some((path, headers)) = read_request(stream)? else { return Ok(()) };
        let hub_path = format!("/{REPO}/resolve/{}/", self.revision);
        let (file, moved) = match (path.strip_prefix(&hub_path), path.strip_prefix("/elsewhere/")) {
            (Some(file), _) => (file.to_string(), false),
            (_, Some(file)) => (file.to_string(), true),
            _ => return respond(stream, 404, &[], b"no such repository"),
        };
        let range = headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        let (from, to) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
        let from: usize = from.parse().expect("a number");
        let body_wanted = to.is_empty();
        self.log.push(Request {
            file: file.clone(),
            from: body_wanted.then_some(from),
            token: headers.get("authorization").cloned(),
        });
        if self.dead && body_wanted {
            return Ok(());
        }
        if let Some(status) = self.statuses.get(&file) {
            let head = ["etag: \"0\"".to_string(), format!("x-repo-commit: {}", self.commit)];
            return respond(stream, *status, &head, b"");
        }
        let Some(bytes) = self.files.get(&file).cloned() else {
            return respond(stream, 404, &[], b"no such file");
        };
        let etag = etag(&bytes);
        let commit = format!("x-repo-commit: {}", self.commit);
        if self.elsewhere.contains(&file) && !moved {
            let linked = format!("x-linked-etag: \"{etag}\"");
            let location = format!("location: http://{address}/elsewhere/{file}");
            return respond(stream, 302, &[linked, location, commit], b"");
        }
        let mut head = vec![format!("etag: \"{etag}\"")];
        if !moved {
            head.push(commit);
        }
        let size = bytes.len();
        if body_wanted && self.ignores_ranges {
            return respond(stream, 200, &head, &bytes);
        }
        if from >= size {
            return respond(stream, 416, &[format!("content-range: bytes */{size}")], b"");
        }
        let end = if body_wanted { size } else { from + 1 };
        head.push(format!("content-range: bytes {from}-{}/{size}", end - 1));
        if body_wanted && self.breaks.as_ref().is_some_and(|(breaks, _)| *breaks == file) {
            let (_, after) = self.breaks.take().expect("just seen");
            self.dead = self.dies;
            write_head(stream, 206, &head, end - from)?;
            return stream.write_all(&bytes[from..from + after]);
        }
        respond(stream, 206, &head, &bytes[from..end])?;
        if body_wanted && self.moves.as_ref().is_some_and(|(after, _)| *after == file) {
            self.commit = self.moves.take().expect("just seen").1;
        }
        Ok(())
    }
}

fn etag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The path and the headers, in lower case; `None` for a connection without a request.
fn read_request(stream: &TcpStream) -> std::io::Result<Option<(String, BTreeMap<String, String>)>> {
    let mut lines = BufReader::new(stream).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(None) };
    let path = first.split(' ').nth(1).unwrap_or_default().to_string();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_string());
    }
    Ok(Some((path, headers)))
}

fn respond(
    stream: &mut TcpStream,
    status: u16,
    head: &[String],
    body: &[u8],
) -> std::io::Result<()> {
    write_head(stream, status, head, body.len())?;
    stream.write_all(body)
}

fn write_head(
    stream: &mut TcpStream,
    status: u16,
    head: &[String],
    length: usize,
) -> std::io::Result<()> {
    let head: String = head.iter().map(|line| format!("{line}\r\n")).collect();
    write!(
        stream,
        "HTTP/1.1 {status} -\r\n{head}content-length: {length}\r\nconnection: close\r\n\r\n"
    )
}

struct Server {
    hub: Arc<Mutex<Hub>>,
    address: SocketAddr,
    /// Dropping it ends the server.
    thread: Option<JoinHandle<()>>,
    cache: TempDir,
}

impl Server {
    /// A hub with the checkpoint of this spec, and an empty cache.
    fn new(spec: &Spec) -> Self {
        let dir = written(spec);
        let files = fs::read_dir(dir.path()).expect("a directory").map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, fs::read(path).expect("a file"))
        });
        let hub = Hub {
            files: files.collect(),
            revision: "main".into(),
            commit: "c0ffee".into(),
            ..Hub::default()
        };
        let hub = Arc::new(Mutex::new(hub));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::downgrade(&hub);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Some(hub) = shared.upgrade() else { return };
                // A client that hangs up is the client's affair.
                let _ =
                    stream.and_then(|mut s| hub.lock().expect("no panic").serve(&mut s, address));
            }
        });
        let cache = tempfile::tempdir().expect("a temporary directory");
        Self { hub, address, thread: Some(thread), cache }
    }

    fn tell<T>(&self, change: impl FnOnce(&mut Hub) -> T) {
        change(&mut self.hub.lock().expect("no panic in the server"));
    }

    fn options(&self) -> HubOptions {
        HubOptions {
            cache_dir: Some(self.cache.path().join("hub")),
            endpoint: Some(format!("http://{}", self.address)),
            ..HubOptions::default()
        }
    }

    fn locate(&self) -> mk_model::Result<PathBuf> {
        locate(REPO, &self.options(), &mut |_| {})
    }

    /// Requests since the last call.
    fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.hub.lock().expect("no panic in the server").log)
    }

    /// First bytes asked for of a file's body, since the last call.
    fn ranges(&self, file: &str) -> Vec<usize> {
        let requests = self.requests().into_iter();
        requests.filter(|r| r.file == file).filter_map(|r| r.from).collect()
    }

    fn size(&self, file: &str) -> usize {
        self.hub.lock().expect("no panic in the server").files[file].len()
    }

    /// Whether `dir` holds the hub's files, and a model comes of them.
    fn check(&self, dir: &Path) {
        for (name, bytes) in &self.hub.lock().expect("no panic in the server").files {
            assert!(fs::read(dir.join(name)).expect(name) == *bytes, "{name}");
        }
        let checkpoint = Checkpoint::open(dir).expect("a checkpoint");
        Model::load(&checkpoint, &ModelOptions::default()).expect("a model");
    }

    /// Where the cache keeps what it has of a file whose download broke off.
    fn part_file(&self, file: &str) -> PathBuf {
        let bytes = self.hub.lock().expect("no panic in the server").files[file].clone();
        let blobs = self.cache.path().join("hub/models--owner--tiny-404/blobs");
        fs::create_dir_all(&blobs).expect("a directory of ours");
        blobs.join(etag(&bytes)).with_extension("part")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Let go of the hub, then wake the server, which finds it gone.
        self.hub = Arc::default();
        let _ = TcpStream::connect(self.address);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the server panicked");
        }
    }
}

/// The file and the reason of an [`Error::Hub`] about the repository, both of which its message holds.
fn hub_error<T: std::fmt::Debug>(result: mk_model::Result<T>) -> (String, String) {
    let error = result.expect_err("this must fail");
    let text = error.to_string();
    let Error::Hub { repo, file, reason } = error else { panic!("{text}") };
    assert_eq!(repo, REPO);
    assert_eq!(text, format!("hub: {repo}: {file}: {reason}"));
    (file, reason)
}

// === Downloads ===

#[test]
fn a_checkpoint_is_downloaded_once() {
    let server = Server::new(&spec());
    let mut last = BTreeMap::new();
    let mut backwards = false;
    let mut hear = |p: Progress<'_>| {
        let before = last.insert(p.what.to_string(), (p.done, p.total));
        backwards |= before.is_some_and(|(done, _)| done > p.done);
    };
    let dir = locate(REPO, &server.options(), &mut hear).expect("a download");
    server.check(&dir);
    assert!(dir.ends_with("models--owner--tiny-404/snapshots/c0ffee"));
    let size = server.size(WEIGHTS) as u64;
    assert_eq!(last[WEIGHTS], (size, size));
    assert!(last.values().all(|(done, total)| done == total) && !backwards, "{last:?}");
    let requests = server.requests();
    assert!(requests.iter().any(|r| r.file == "chat_template.jinja"), "an optional file");
    assert!(!requests.iter().any(|r| r.file == "vocab.json"), "tokenizer.json holds it all");

    // The hub need not be asked again, not even about files that it does not have; nor be there at all.
    assert_eq!(server.locate().expect("the cache"), dir);
    let offline = HubOptions { offline: true, ..server.options() };
    assert_eq!(locate(REPO, &offline, &mut |_| {}).expect("the cache"), dir);
    assert_eq!(server.requests(), []);
    let nowhere = HubOptions { endpoint: Some("http://127.0.0.1:1".into()), ..server.options() };
    assert_eq!(locate(REPO, &nowhere, &mut |_| {}).expect("the cache"), dir);
}

#[test]
fn files_in_folders_come_along() {
    let server = Server::new(&spec());
    let names = ["codec/config.json", "codec/parts/1.bin"];
    server.tell(|hub| hub.files.extend(names.map(|name| (name.into(), name.into()))));
    let options = HubOptions { also: names.map(Into::into).into(), ..server.options() };
    let dir = locate(REPO, &options, &mut |_| {}).expect("a download");
    assert!(dir.ends_with("snapshots/c0ffee"));
    server.check(&dir);
    let offline = HubOptions { offline: true, ..options.clone() };
    assert_eq!(locate(REPO, &offline, &mut |_| {}).expect("the cache"), dir);
    let more = HubOptions { also: vec!["codec/none".into()], ..options };
    let (file, reason) = hub_error(locate(REPO, &more, &mut |_| {}));
    assert_eq!(file, "codec/none");
    assert!(reason.contains("not in the repository"), "{reason}");
}

#[test]
fn a_directory_is_taken_as_it_is() {
    let dir = written(&spec());
    let options = HubOptions { offline: true, ..HubOptions::default() };
    let source = dir.path().to_str().expect("a path of ours");
    assert_eq!(locate(source, &options, &mut |_| {}).expect("a directory"), dir.path());
}

#[test]
fn shards_are_downloaded_too() {
    let server = Server::new(&Spec { max_shard_bytes: Some(2_000), tied: false, ..spec() });
    let dir = server.locate().expect("a download");
    server.check(&dir);
    server.requests();
    assert_eq!(server.locate().expect("the cache"), dir);
    assert_eq!(server.requests(), []);

    let server = Server::new(&Spec { max_shard_bytes: Some(2_000), ..spec() });
    let shard = "model-00002-of-";
    server.tell(|hub| hub.files.retain(|name, _| !name.starts_with(shard)));
    let (file, reason) = hub_error(server.locate());
    assert!(file.starts_with(shard) && reason.contains("404"), "{file}: {reason}");

    server.tell(|hub| hub.files.insert(INDEX.into(), b"{ \"weight_map\"".to_vec()));
    fs::remove_dir_all(server.cache.path().join("hub")).expect("the cache");
    let error = server.locate().expect_err("an index that is not JSON");
    assert!(matches!(&error, Error::Json { path, .. } if path.ends_with(INDEX)), "{error}");
}

#[test]
fn large_files_may_be_elsewhere() {
    let server = Server::new(&spec());
    server.tell(|hub| hub.elsewhere.insert(WEIGHTS.into()));
    server.check(&server.locate().expect("a download"));
}

#[test]
fn another_revision_is_another_directory() {
    let server = Server::new(&spec());
    let main = server.locate().expect("a download");
    server.tell(|hub| {
        hub.revision = "v2".into();
        hub.commit = "decade".into();
        hub.files.insert("generation_config.json".into(), b"{ \"top_k\": 7 }".to_vec());
    });
    let options = HubOptions { revision: Some("v2".into()), ..server.options() };
    let dir = locate(REPO, &options, &mut |_| {}).expect("a download");
    server.check(&dir);
    assert_ne!(dir, main);
    assert_eq!(server.locate().expect("the cache"), main);
}

#[test]
fn a_repository_that_changes_meanwhile_is_taken_whole() {
    let server = Server::new(&spec());
    server.tell(|hub| hub.moves = Some(("config.json".into(), "decade".into())));
    let dir = server.locate().expect("a download");
    assert!(dir.ends_with("decade"));
    server.check(&dir);
}

// === Downloads that break ===

#[test]
fn a_broken_download_goes_on_where_it_was() {
    let server = Server::new(&spec());
    server.tell(|hub| hub.breaks = Some((WEIGHTS.into(), 1_000)));
    server.check(&server.locate().expect("a download"));
    assert_eq!(server.ranges(WEIGHTS), [0, 1_000]);
}

#[test]
fn the_next_call_asks_only_for_the_rest() {
    let server = Server::new(&spec());
    server.tell(|hub| {
        hub.breaks = Some((WEIGHTS.into(), 1_000));
        hub.dies = true;
    });
    let (file, _) = hub_error(server.locate());
    assert_eq!(file, WEIGHTS);
    assert_eq!(fs::metadata(server.part_file(WEIGHTS)).expect("a part").len(), 1_000);
    server.requests();
    // A call that gets nowhere does no harm to what is there.
    hub_error(server.locate());
    assert_eq!(server.ranges(WEIGHTS), [1_000]);

    server.tell(|hub| hub.dead = false);
    let mut heard = Vec::new();
    let mut hear = |p: Progress<'_>| heard.push((p.what.to_string(), p.done));
    let dir = locate(REPO, &server.options(), &mut hear).expect("the rest");
    server.check(&dir);
    let requests = server.requests();
    assert!(requests.iter().all(|r| r.file == WEIGHTS), "{requests:?}");
    assert_eq!(requests.iter().filter_map(|r| r.from).collect::<Vec<_>>(), [1_000]);
    assert!(heard.contains(&(WEIGHTS.into(), 1_000)), "the part counts as done: {heard:?}");
}

#[test]
fn what_is_left_of_a_download_is_mended() {
    // A part that is whole (the process ended before it could be renamed), and one that is longer than the file.
    for surplus in [0, 10] {
        let server = Server::new(&spec());
        let mut part = server.hub.lock().expect("no panic in the server").files[WEIGHTS].clone();
        part.extend(vec![0; surplus]);
        fs::write(server.part_file(WEIGHTS), part).expect("a file of ours");
        server.check(&server.locate().expect("a download"));
        let last = server.size(WEIGHTS) - 1;
        let want = if surplus == 0 { vec![last + 1, last] } else { vec![0] };
        assert_eq!(server.ranges(WEIGHTS), want);
    }
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let server = Server::new(&spec());
    fs::write(server.part_file(WEIGHTS), [0; 100]).expect("a file of ours");
    server.tell(|hub| hub.ignores_ranges = true);
    server.check(&server.locate().expect("a download"));
    assert_eq!(server.ranges(WEIGHTS), [100, 0]);
}

// === What cannot be had ===

#[test]
fn offline_without_the_cache_is_an_error() {
    let server = Server::new(&spec());
    let offline = HubOptions { offline: true, ..server.options() };
    let (file, reason) = hub_error(locate(REPO, &offline, &mut |_| {}));
    assert_eq!(file, "config.json");
    assert!(reason.contains("not in the cache") && reason.contains("offline"), "{reason}");

    // A cache that was filled up to the weights.
    server.tell(|hub| hub.statuses.insert(WEIGHTS.into(), 500));
    hub_error(server.locate());
    let (file, reason) = hub_error(locate(REPO, &offline, &mut |_| {}));
    assert_eq!(file, WEIGHTS);
    assert!(reason.contains("not in the cache") && reason.contains(INDEX), "{reason}");
}

#[test]
fn required_files_are_missed_by_name() {
    for (gone, want) in [("config.json", "config.json"), (WEIGHTS, WEIGHTS)] {
        let server = Server::new(&spec());
        server.tell(|hub| hub.files.remove(gone));
        let (file, reason) = hub_error(server.locate());
        assert_eq!(file, want);
        assert!(reason.contains("revision main") && reason.contains("404"), "{reason}");
    }
    let server = Server::new(&spec());
    let options = HubOptions { revision: Some("v9".into()), ..server.options() };
    let (_, reason) = hub_error(locate(REPO, &options, &mut |_| {}));
    assert!(reason.contains("revision v9"), "{reason}");
}

#[test]
fn only_404_means_that_a_file_does_not_exist() {
    // The repository has 404 in its name, which messages may repeat.
    for file in ["chat_template.jinja", "tokenizer.json", WEIGHTS] {
        let server = Server::new(&spec());
        server.tell(|hub| hub.statuses.insert(file.into(), 500));
        let (failed, reason) = hub_error(server.locate());
        assert_eq!((failed.as_str(), reason.contains("500")), (file, true), "{reason}");
        server.tell(|hub| hub.statuses.clear());
        server.check(&server.locate().expect("a download once the hub is well again"));
    }
}

#[test]
fn refusals_say_what_would_help() {
    let server = Server::new(&spec());
    for (status, hint) in [(401, "access token"), (403, "ask for access")] {
        server.tell(|hub| hub.statuses.insert("config.json".into(), status));
        let (file, reason) = hub_error(server.locate());
        assert_eq!(file, "config.json");
        assert!(reason.contains(&status.to_string()) && reason.contains(hint), "{reason}");
    }
    assert!(server.requests().iter().all(|r| r.token.is_none()));
    server.tell(|hub| hub.statuses.clear());
    let options = HubOptions { token: Some("hf_secret".into()), ..server.options() };
    locate(REPO, &options, &mut |_| {}).expect("a download");
    assert!(server.requests().iter().all(|r| r.token.as_deref() == Some("Bearer hf_secret")));
}

#[test]
fn a_hub_that_is_not_there_is_an_error() {
    let cache = tempfile::tempdir().expect("a temporary directory");
    let options = HubOptions {
        cache_dir: Some(cache.path().into()),
        // A port that only the superuser could serve, and nobody does.
        endpoint: Some("http://127.0.0.1:1".into()),
        ..HubOptions::default()
    };
    let (file, reason) = hub_error(locate(REPO, &options, &mut |_| {}));
    assert_eq!(file, "config.json");
    assert!(reason.contains("refused"), "{reason}");
}

#[test]
fn answers_that_make_no_sense_are_errors() {
    // Redirects without a target; on the real hub they have one.
    for status in [300, 302, 304] {
        let server = Server::new(&spec());
        server.tell(|hub| hub.statuses.insert("config.json".into(), status));
        let (file, _) = hub_error(server.locate());
        assert_eq!(file, "config.json");
    }
}

#[test]
fn names_that_are_none_are_refused_without_asking() {
    let server = Server::new(&spec());
    for name in ["", "tiny", "a/b/c", "/tiny", "owner/", "../tiny", "owner/..", "own er/x", "o/x?y"]
    {
        let error = locate(name, &server.options(), &mut |_| {}).expect_err("not a name");
        let text = error.to_string();
        assert!(matches!(&error, Error::Hub { repo, .. } if repo == name), "{text}");
        assert!(text.contains("neither a directory nor a repository (owner/name)"), "{text}");
    }
    for revision in ["", "..", "refs/../../x", "/main"] {
        let options = HubOptions { revision: Some(revision.into()), ..server.options() };
        let (_, reason) = hub_error(locate(REPO, &options, &mut |_| {}));
        assert_eq!(reason, format!("{revision:?} is not a revision: a branch, tag or commit"));
    }
    assert_eq!(server.requests(), []);
}
