//! `[synproxy] secret_file`: the secret that boxes share, read once at start.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Config, ConfigError};

/// Fewest bytes of a secret file: below them its keys could be guessed.
pub const SECRET_MIN: usize = 32;
/// Most bytes of a secret file: more is probably another file.
pub const SECRET_MAX: usize = 4096;

/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// The bytes of a secret file, as they are: a newline at the end belongs to them.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedSecret(Vec<u8>);

impl SharedSecret {
    /// The bytes, [`SECRET_MIN`] to [`SECRET_MAX`] of them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SharedSecret {
    /// Without the secret, which would end in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedSecret({} bytes)", self.0.len())
    }
}

/// Why a file is no secret file: what it is, and what would be right.
type Refusal = (String, String);

impl Config {
    /// The secret of `[synproxy] secret_file`; `None` when the file names none.
    ///
    /// # Errors
    /// When it cannot be read, is no regular file, may be read by others than its owner, or is
    /// not of [`SECRET_MIN`] to [`SECRET_MAX`] bytes; with the line that names it.
    pub fn read_secret(&self) -> Result<Option<SharedSecret>, ConfigError> {
        let Some(path) = &self.synproxy.secret_file else { return Ok(None) };
        read(&path.value).map(Some).map_err(|(what, remedy)| {
            let message = format!("[synproxy] secret_file {}: {what}", path.value.display());
            self.error_at(path.line, message, remedy)
        })
    }
}

fn read(path: &Path) -> Result<SharedSecret, Refusal> {
    let unreadable = |error: io::Error| {
        let make = format!("`(umask 077; head -c 64 /dev/urandom > {})`", path.display());
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => {
                format!("expected an existing file; make one with {make} and copy it to every box")
            }
            _ => "expected a file that the daemon can read".to_owned(),
        };
        (format!("cannot be read: {error}"), remedy)
    };
    // Before it is opened: opening a FIFO would wait for a writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(("is not a regular file".into(), "expected a file that holds bytes".into()));
    }
    let file = File::open(path).map_err(unreadable)?;
    // Of the file that was opened, which another may have replaced since.
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if mode & OTHERS != 0 {
        let what = format!("others than its owner may use it, its mode is {:04o}", mode & 0o7777);
        return Err((what, format!("expected mode 0600; run `chmod 600 {}`", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(SECRET_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let length = match bytes.len() {
        SECRET_MIN..=SECRET_MAX => return Ok(SharedSecret(bytes)),
        length if length < SECRET_MIN => format!("holds {length} bytes"),
        _ => format!("holds more than {SECRET_MAX} bytes"),
    };
    Err((length, format!("expected {SECRET_MIN} to {SECRET_MAX} random bytes")))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Case {
        _directory: tempfile::TempDir,
        path: PathBuf,
        config: Config,
    }

    /// A configuration that names, on line 3, a file in a folder of its own.
    fn case() -> Case {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let text = format!("interfaces = [\"eth0\"]\n[synproxy]\nsecret_file = {path:?}");
        let config = Config::parse("t.toml", &text).unwrap();
        Case { _directory: directory, path, config }
    }

    impl Case {
        fn write(&self, bytes: &[u8], mode: u32) {
            fs::write(&self.path, bytes).unwrap();
            fs::set_permissions(&self.path, fs::Permissions::from_mode(mode)).unwrap();
        }

        #[track_caller]
        fn refused(&self, what: &str) {
            let error = self.config.read_secret().unwrap_err().to_string();
            let expected =
                format!("t.toml:3: [synproxy] secret_file {}: {what}", self.path.display());
            assert!(error.starts_with(&expected), "\n got {error}\nwant {expected}");
        }
    }

    #[test]
    fn its_bytes_are_the_secret() {
        let case = case();
        for (bytes, mode) in [(vec![7; 32], 0o600), (b"secret\n".repeat(585), 0o400)] {
            case.write(&bytes, mode);
            let secret = case.config.read_secret().unwrap().unwrap();
            assert_eq!(secret.as_bytes(), bytes);
            assert_eq!(format!("{secret:?}"), format!("SharedSecret({} bytes)", bytes.len()));
        }
    }

    #[test]
    fn without_the_key_there_is_none() {
        let config = Config::parse("t.toml", "interfaces = [\"eth0\"]").unwrap();
        assert_eq!(config.read_secret().unwrap(), None);
    }

    #[test]
    fn a_missing_file_says_how_to_make_one() {
        let case = case();
        case.refused("cannot be read: No such file or directory (os error 2); expected an existing file; make one with `(umask 077; head -c 64 /dev/urandom > /");
    }

    #[test]
    fn a_folder_is_no_secret() {
        let case = case();
        fs::create_dir(&case.path).unwrap();
        case.refused("is not a regular file; expected a file that holds bytes");
    }

    #[test]
    fn a_file_that_others_may_use_is_refused() {
        let case = case();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o601, 0o644] {
            case.write(&[7; 64], mode);
            case.refused(&format!(
                "others than its owner may use it, its mode is {mode:04o}; expected mode 0600; run `chmod 600 /"
            ));
        }
    }

    #[test]
    fn a_file_of_a_wrong_length_is_refused() {
        let case = case();
        for (length, said) in [
            (0, "holds 0 bytes"),
            (31, "holds 31 bytes"),
            (4097, "holds more than 4096 bytes"),
            (1 << 20, "holds more than 4096 bytes"),
        ] {
            case.write(&vec![7; length], 0o600);
            case.refused(&format!("{said}; expected 32 to 4096 random bytes"));
        }
    }
}
