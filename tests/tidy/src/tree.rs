//! The files of the tree, read once.
//!
//! Reads text files below the workspace's root, but for what is built (`target`) and what git keeps. Files that are
//! not UTF-8 are passed over: no rule is about them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One text file.
#[derive(Clone, Debug)]
pub struct File {
    /// Relative to the root, with slashes.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// Every text file of the workspace, sorted by path.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The workspace's folder.
    pub root: PathBuf,
    /// Its files.
    pub files: Vec<File>,
}

/// Larger ones are data, not text for people.
const FILE_MAX: u64 = 4 << 20;

impl Tree {
    /// Reads the workspace that this crate is part of.
    pub fn read() -> io::Result<Tree> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let mut files = Vec::new();
        walk(&root, &root, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Tree { root, files })
    }

    /// A tree made of these, for tests of the rules.
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let files =
            files.iter().map(|(path, text)| File { path: (*path).into(), text: (*text).into() }).collect();
        Tree { root: PathBuf::new(), files }
    }

    /// The file at this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether a file or a folder has this path.
    pub fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.root.join(path).exists()
            || self.files.iter().any(|file| file.path == path || file.path.starts_with(&folder))
    }

    /// The Rust sources.
    pub fn sources(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// The folder of the package that a file belongs to.
    pub fn package_of<'a>(&self, path: &'a str) -> Option<&'a str> {
        let mut folder = path;
        while let Some((parent, _)) = folder.rsplit_once('/') {
            if self.file(&format!("{parent}/Cargo.toml")).is_some() {
                return Some(parent);
            }
            folder = parent;
        }
        None
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<File>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = entry.path();
        let name = entry.file_name();
        if kind.is_dir() {
            if name != ".git" && name != "target" {
                walk(root, &path, files)?;
            }
        } else if kind.is_file()
            && entry.metadata()?.len() <= FILE_MAX
            && let Ok(text) = fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.push(File { path, text });
        }
    }
    Ok(())
}
