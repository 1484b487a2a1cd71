//! A small image, made to be altered, and the forms in which engines save one.

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// An entry of a layer.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) kind: EntryType,
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) owner: String,
    pub(crate) mtime: u64,
    pub(crate) target: String,
    pub(crate) attributes: Vec<(String, Vec<u8>)>,
}

impl File {
    pub(crate) fn new(name: &str, content: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: EntryType::Regular,
            content: content.into(),
            mode: 0o444,
            uid: 0,
            gid: 0,
            owner: String::new(),
            mtime: 1_700_000_000,
            target: String::new(),
            attributes: Vec::new(),
        }
    }

    pub(crate) fn link(name: &str, kind: EntryType, target: &str) -> Self {
        Self { kind, target: target.to_owned(), ..Self::new(name, "") }
    }
}

/// How an archive is made.
#[derive(Clone, Default)]
pub(crate) struct Form {
    pub(crate) gzip_layers: bool,
    pub(crate) zstd_layers: bool,
    pub(crate) gzip_whole: bool,
    pub(crate) zstd_whole: bool,
    /// Everything under `blobs/sha256`, with an `index.json`.
    pub(crate) blobs: bool,
    /// Layers named as older dockers do, the second a link to the first where they are the same.
    pub(crate) legacy_names: bool,
    pub(crate) mtime: u64,
    pub(crate) tags: Vec<String>,
    pub(crate) reordered: bool,
    pub(crate) pretty: bool,
}

/// An image, ready to be saved.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) config: Value,
    pub(crate) layers: Vec<Vec<File>>,
    /// Makes the layers' tar archives in another form.
    pub(crate) ustar: bool,
    /// After the mark at the end of the layers.
    pub(crate) trailing: Vec<u8>,
    pub(crate) form: Form,
}

impl Image {
    pub(crate) fn new() -> Self {
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2023-11-14T22:13:20Z",
            "id": "aa",
            "parent": "sha256:bb",
            "container": "cc",
            "container_config": {"Hostname": "cc", "Cmd": ["x"]},
            "docker_version": "20.10.24",
            "config": {
                "Hostname": "d490b327ca96",
                "Image": "",
                "User": "65532:65532",
                "Env": ["PATH=/bin", "ENVIRONMENT=production"],
                "Entrypoint": ["/bin/one"],
                "Cmd": ["start"],
                "WorkingDir": "/",
                "StopSignal": "SIGTERM",
                "ExposedPorts": {"8000/tcp": {}},
                "Volumes": {},
                "OnBuild": [],
                "Healthcheck": {"Test": ["CMD", "/bin/one", "healthcheck"], "Interval": 30_000_000_000_u64},
                "Labels": {"io.buildah.version": "1.28.2", "org.opencontainers.image.revision": "abc"},
            },
            "history": [
                {"created": "2023-11-14T22:13:20Z", "created_by": "COPY", "comment": "FROM e1233688d0c0"},
                {"created": "2023-11-14T22:13:20Z", "created_by": "RUN", "comment": "FROM 78cf0fbeb6c0"},
            ],
        });
        let folder = File { kind: EntryType::Directory, mode: 0o755, ..File::new("bin/", "") };
        let one = File { mode: 0o555, ..File::new("bin/one", "a program") };
        let layers = vec![
            vec![
                folder,
                one,
                File::link("bin/two", EntryType::Link, "bin/one"),
                File::link("bin/three", EntryType::Symlink, "one"),
            ],
            vec![File::new("etc/passwd", "root:x:0:0::/:\n"), File::new("etc/group", "root:x:0:\n")],
        ];
        Self { config, layers, ustar: false, trailing: Vec::new(), form: Form::default() }
    }

    pub(crate) fn file(&mut self, name: &str) -> &mut File {
        self.layers.iter_mut().flatten().find(|file| file.name == name).unwrap()
    }

    pub(crate) fn settings(&mut self) -> &mut Value {
        &mut self.config["config"]
    }

    /// The configuration and the layers as they are stored, with the names that the manifest gives them.
    pub(crate) fn members(&self) -> Vec<(String, Vec<u8>)> {
        let layers: Vec<Vec<u8>> = self.layers.iter().map(|layer| self.layer(layer)).collect();
        let mut config = self.config.clone();
        if config["rootfs"].is_null() {
            let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", digest(layer))).collect();
            config["rootfs"] = json!({"type": "layers", "diff_ids": ids});
        }
        let config = if self.form.pretty {
            // In another order, too.
            let reversed: Vec<String> =
                config.as_object().unwrap().iter().rev().map(|(name, value)| format!("{name:?}: {value:#}")).collect();
            format!("{{ {} }}\n", reversed.join(",\n")).into_bytes()
        } else {
            config.to_string().into_bytes()
        };
        let mut members = vec![(self.name(&config, "config.json"), config)];
        for (index, layer) in layers.into_iter().enumerate() {
            let stored = match &self.form {
                form if form.gzip_layers => gzip(&layer),
                form if form.zstd_layers => zstd(&layer),
                _ => layer,
            };
            let plain = if self.form.legacy_names { format!("l{index}/layer.tar") } else { format!("{index}.tar") };
            members.push((self.name(&stored, &plain), stored));
        }
        members
    }

    fn name(&self, content: &[u8], plain: &str) -> String {
        if self.form.blobs { format!("blobs/sha256/{}", digest(content)) } else { plain.to_owned() }
    }

    /// All members of the archive; tests alter them.
    pub(crate) fn archive(&self) -> Vec<(String, Vec<u8>)> {
        let mut members = self.members();
        let names: Vec<String> = members.iter().map(|(name, _)| name.clone()).collect();
        let manifest = json!([{"Config": names[0], "RepoTags": self.form.tags, "Layers": names[1..]}]);
        if self.form.blobs {
            let descriptor = |(name, content): &(String, Vec<u8>)| json!({"digest": name.replace("blobs/sha256/", "sha256:"), "size": content.len()});
            let layers: Vec<Value> = members[1..].iter().map(descriptor).collect();
            let image = json!({"schemaVersion": 2, "config": descriptor(&members[0]), "layers": layers}).to_string();
            let image = (self.name(image.as_bytes(), ""), image.into_bytes());
            let index = json!({"schemaVersion": 2, "manifests": [
                descriptor(&image),
                {"digest": format!("sha256:{}", "0".repeat(64)), "platform": {"os": "linux", "architecture": "arm64"}},
            ]});
            members.push(image);
            members.push(("index.json".to_owned(), index.to_string().into_bytes()));
            members.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        }
        members.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
        if self.form.reordered {
            members.reverse();
        }
        members
    }

    pub(crate) fn save(&self, path: &Path) {
        let whole = self.pack(&self.archive());
        let whole = match &self.form {
            form if form.gzip_whole => gzip(&whole),
            form if form.zstd_whole => zstd(&whole),
            _ => whole,
        };
        fs::write(path, whole).unwrap();
    }

    /// Packs the members of an archive.
    pub(crate) fn pack(&self, members: &[(String, Vec<u8>)]) -> Vec<u8> {
        let files: Vec<File> = members
            .iter()
            .map(|(name, content)| File { content: content.clone(), mtime: self.form.mtime, ..File::new(name, "") })
            .collect();
        tar(&files, false)
    }

    pub(crate) fn layer(&self, files: &[File]) -> Vec<u8> {
        let mut packed = tar(files, self.ustar);
        packed.extend(&self.trailing);
        packed
    }
}

pub(crate) fn tar(files: &[File], ustar: bool) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for file in files {
        let attributes = file.attributes.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        builder.append_pax_extensions(attributes).unwrap();
        let mut header = if ustar { Header::new_ustar() } else { Header::new_gnu() };
        // Set as bytes: the crate refuses names such as `../x`.
        header.as_old_mut().name[..file.name.len()].copy_from_slice(file.name.as_bytes());
        header.as_old_mut().linkname[..file.target.len()].copy_from_slice(file.target.as_bytes());
        header.set_entry_type(file.kind);
        header.set_size(file.content.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(file.uid);
        header.set_gid(file.gid);
        header.set_username(&file.owner).unwrap();
        header.set_mtime(file.mtime);
        if file.kind == EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(1).unwrap();
        }
        header.set_cksum();
        builder.append(&header, file.content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Two frames, and one between that is to be skipped, as zstd:chunked has it.
pub(crate) fn zstd(content: &[u8]) -> Vec<u8> {
    let (front, behind) = content.split_at(content.len() / 2);
    let mut packed = compress_to_vec(front, CompressionLevel::Fastest);
    packed.extend(b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc");
    packed.extend(compress_to_vec(behind, CompressionLevel::Fastest));
    packed
}

pub(crate) fn digest(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}
