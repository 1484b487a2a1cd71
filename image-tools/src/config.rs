//! What configurations differ in, field by field.

use serde_json::Value;

/// Takes out what says how and where an image was built, and that no container runs by. Engines keep the document byte
/// for byte when they load and save it, so nothing else is evened out.
fn relevant(document: &Value) -> Value {
    let mut document = document.clone();
    let Some(fields) = document.as_object_mut() else { return document };
    for name in [
        // Ids of docker's and podman's intermediate images and containers, and what the container looked like that the
        // last step ran in (moby/moby image/image.go, V1Image; moby/docker-image-spec v1.2.md).
        "id",
        "parent",
        "container",
        "container_config",
        // The builder's version (the same V1Image).
        "docker_version",
        // BuildKit's cache, written for the next build (moby/buildkit exporter/containerimage/writer.go, patchImageConfig),
        // and, up to 0.11, the sources of this one (moby/buildkit docs/buildinfo.md).
        "moby.buildkit.cache.v0",
        "moby.buildkit.buildinfo.v1",
    ] {
        fields.remove(name);
    }
    if let Some(config) = fields.get_mut("config").and_then(Value::as_object_mut) {
        // The name of the container that the last step ran in, and the image that it ran from. A container takes neither
        // from its image (moby/moby daemon/commit.go, merge).
        config.remove("Hostname");
        config.remove("Image");
        // The builder's version (containers/buildah docs/buildah-build.1.md, --identity-label).
        if let Some(labels) = config.get_mut("Labels").and_then(Value::as_object_mut) {
            labels.remove("io.buildah.version");
        }
    }
    for step in fields.get_mut("history").and_then(Value::as_array_mut).into_iter().flatten() {
        // podman names an intermediate image in it (containers/buildah commit.go, "FROM ..."), BuildKit itself
        // ("buildkit.dockerfile.v0").
        step.as_object_mut().map(|step| step.remove("comment"));
    }
    document
}

/// Each difference on a line: the field, and both values.
pub(crate) fn differences(one: &Value, other: &Value) -> Vec<String> {
    let mut found = Vec::new();
    descend("", &relevant(one), &relevant(other), &mut found);
    found
}

fn descend(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            for (name, value) in one {
                let path = field(path, name);
                match other.get(name) {
                    Some(counterpart) => descend(&path, value, counterpart, found),
                    None => found.push(format!("{path}: {value} in the first only")),
                }
            }
            let added = other.iter().filter(|(name, _)| !one.contains_key(*name));
            found.extend(added.map(|(name, value)| format!("{}: {value} in the second only", field(path, name))));
        }
        (Value::Array(one), Value::Array(other)) => {
            // What is the same in front and behind is left out: else one line more would make all that follow differ.
            let front = one.iter().zip(other).take_while(|(one, other)| one == other).count();
            let (one, other) = (&one[front..], &other[front..]);
            let behind = one.iter().rev().zip(other.iter().rev()).take_while(|(one, other)| one == other).count();
            let (one, other) = (&one[..one.len() - behind], &other[..other.len() - behind]);
            for index in 0..one.len().max(other.len()) {
                let path = format!("{path}[{}]", front + index);
                match (one.get(index), other.get(index)) {
                    (Some(one), Some(other)) => descend(&path, one, other, found),
                    (Some(one), None) => found.push(format!("{path}: {one} in the first only")),
                    (None, Some(other)) => found.push(format!("{path}: {other} in the second only")),
                    (None, None) => {}
                }
            }
        }
        (one, other) if one == other => {}
        (one, other) => found.push(format!("{path}: {one} in the first, {other} in the second")),
    }
}

/// `path.name`, or `path["na.me"]`.
fn field(path: &str, name: &str) -> String {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match (plain, path.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{path}.{name}"),
        (false, _) => format!("{path}[{}]", Value::from(name)),
    }
}
