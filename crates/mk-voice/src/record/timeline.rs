//! What happens in a conversation, as JSON.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::RecordError;

/// The end of the list, over which the next event is written.
const END: &str = "\n]\n";

/// A file with a list of events, whole after each of them.
#[derive(Debug)]
pub(super) struct Timeline {
    file: File,
    path: PathBuf,
    empty: bool,
}

impl Timeline {
    pub(super) fn create(path: PathBuf) -> Result<Self, RecordError> {
        let create = || {
            let mut file = File::create(&path)?;
            write!(file, "[{END}")?;
            Ok(file)
        };
        match create() {
            Ok(file) => Ok(Self { file, path, empty: true }),
            Err(source) => Err(RecordError::Io { path, source }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn add(
        &mut self,
        at: Duration,
        event: &serde_json::Value,
    ) -> Result<(), RecordError> {
        let comma = if self.empty { "" } else { "," };
        let line = serde_json::json!({ "at": at.as_secs_f64(), "event": event });
        let text = format!("{comma}\n{line}{END}");
        self.write(&text).map_err(|source| RecordError::Io { path: self.path.clone(), source })?;
        self.empty = false;
        Ok(())
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.file.seek(SeekFrom::End(-(END.len() as i64)))?;
        self.file.write_all(text.as_bytes())
    }
}
