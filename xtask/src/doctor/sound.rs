//! Sound: ALSA's library and headers, and the devices the kernel knows.

use super::machine::{Machine, entries, output};
use super::{Finding, Status};

/// Where Linux distributions keep libraries, with one more level for Debian's folders per architecture.
const LIBRARIES: [&str; 4] = ["usr/lib", "usr/lib64", "lib", "lib64"];
const HEADER: &str = "usr/include/alsa/asoundlib.h";

pub fn library(machine: &Machine) -> Finding {
    let headers = machine.system.join(HEADER).is_file() || pkg_config_knows_alsa(machine);
    let (status, found) = match (has_library(machine), headers) {
        (true, true) => (Status::Present, "libasound and its headers"),
        (true, false) => (Status::NotNeededYet, "libasound without its headers"),
        (false, true) => (Status::NotNeededYet, "headers of libasound without the library"),
        (false, false) => (Status::NotNeededYet, "no libasound, and no headers of it"),
    };
    Finding::new("sound library", status, found)
        .means("mk-voice", "`voice_demo --local` (feature local-audio) records and plays through it; nothing else needs it")
        .install("apt-get install libasound2-dev")
}

pub fn devices(machine: &Machine) -> Finding {
    let list = machine.read("proc/asound/pcm");
    let (capture, playback) = (devices_for(&list, "capture"), devices_for(&list, "playback"));
    let (status, found) = if capture + playback > 0 {
        (Status::Present, format!("{capture} to record from, {playback} to play on"))
    } else {
        (Status::NotNeededYet, "none in /proc/asound/pcm".to_owned())
    };
    Finding::new("sound devices", status, found)
        .means("mk-voice", "a conversation at this machine (`voice_demo --local`) needs one of each; the page and files do not")
}

fn has_library(machine: &Machine) -> bool {
    let is_library = |name: &str| name.starts_with("libasound.so");
    LIBRARIES.iter().any(|folder| {
        let folder = machine.system.join(folder);
        !entries(&folder, is_library).is_empty()
            || entries(&folder, |name| name.contains("-linux-"))
                .iter()
                .any(|folder| !entries(folder, is_library).is_empty())
    })
}

fn pkg_config_knows_alsa(machine: &Machine) -> bool {
    machine
        .program("pkg-config")
        .is_some_and(|program| output(&program, &["--exists", "alsa"]).is_some())
}

/// Devices that can do `what`, in the kernel's list: `00-00: Name : Name : playback 1 : capture 1`.
fn devices_for(list: &str, what: &str) -> usize {
    let does = |part: &str| part.trim().strip_prefix(what).is_some_and(|n| n.starts_with(' '));
    list.lines().filter(|line| line.split(':').skip(1).any(does)).count()
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::made_of;
    use super::*;

    #[test]
    fn the_kernels_list() {
        let list = "00-00: ALC257 Analog : ALC257 Analog : playback 1 : capture 1\n\
                    00-03: HDMI 0 : HDMI 0 : playback 1\n\
                    01-00: USB Audio : USB Audio : capture 1\n";
        assert_eq!(devices_for(list, "playback"), 2);
        assert_eq!(devices_for(list, "capture"), 2);
        assert_eq!(devices_for("", "capture"), 0);
    }

    #[test]
    fn the_library_and_its_headers() {
        let root = tempfile::tempdir().unwrap();
        let machine = made_of(root.path(), &[], &[]);
        assert_eq!(library(&machine).found, "no libasound, and no headers of it");
        assert_eq!(devices(&machine).status, Status::NotNeededYet);
        let files = ["system/usr/lib/x86_64-linux-gnu/libasound.so.2"];
        let machine = made_of(root.path(), &files, &[]);
        assert_eq!(library(&machine).found, "libasound without its headers");
        let machine = made_of(root.path(), &[&format!("system/{HEADER}")], &[]);
        assert_eq!(library(&machine).status, Status::Present);
    }
}
