//! The imports of the product's modules point downwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The project's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The layers that src/lib.rs lists, from the top: the number of each module's layer.
fn layers() -> BTreeMap<String, usize> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let lines = lib.lines().filter_map(|line| line.strip_prefix("//! ")?.split_once(". "));
    let numbered = lines.filter_map(|(number, modules)| Some((number.parse().ok()?, modules)));
    let names = |modules: &str| modules.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    numbered
        .flat_map(|(number, modules): (usize, &str)| names(modules).into_iter().map(move |name| (name, number)))
        .collect()
}

/// Every file of src/ and the code in it: without comments, and without the unit tests at its end.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join("src")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
                let lines = code.lines().map(|line| line.split("//").next().unwrap());
                sources.push((
                    path.strip_prefix(root().join("src")).unwrap().to_owned(),
                    lines.collect::<Vec<_>>().join("\n"),
                ));
            }
        }
    }
    sources
}

/// The names that follow `prefix` in the code, in lists in braces, too.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for rest in code.split(prefix).skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0;
                let parts = list.split(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    c == ',' && depth == 0 || depth < 0
                });
                names.extend(parts.take_while(|part| !part.contains(';')).map(|part| word(part.trim())));
            }
            None => drop(names.insert(word(rest))),
        }
    }
    names
}

fn module_of(path: &Path) -> String {
    path.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

#[test]
fn modules_import_only_from_layers_below() {
    let layers = layers();
    let mut upward = Vec::new();
    for (path, code) in sources() {
        let module = module_of(&path);
        if ["main", "lib"].contains(&module.as_str()) {
            continue;
        }
        let layer = *layers.get(&module).unwrap_or_else(|| panic!("src/lib.rs has no layer for {module}"));
        for name in names_after(&code, "crate::") {
            if name != module && layers.get(&name).is_some_and(|below| *below <= layer) {
                upward.push(format!("{} imports {name}", path.display()));
            }
        }
    }
    assert!(upward.is_empty(), "these imports point upwards: {upward:#?}");
    let folders: BTreeSet<String> = sources().iter().map(|(path, _)| module_of(path)).collect();
    assert!(layers.keys().all(|module| folders.contains(module)), "src/lib.rs lists a module that is not there");
}

#[test]
fn files_of_a_module_import_in_one_direction() {
    let sources = sources();
    let files: BTreeSet<&Path> = sources.iter().map(|(path, _)| path.as_path()).collect();
    let mut imports: BTreeMap<&Path, Vec<PathBuf>> = BTreeMap::new();
    for (path, code) in &sources {
        let folder = path.parent().unwrap();
        let siblings = names_after(code, "super::").into_iter().map(|name| folder.join(format!("{name}.rs")));
        imports.insert(path, siblings.filter(|sibling| files.contains(sibling.as_path())).collect());
    }
    // Files that import nothing of what is left are taken away until only cycles are.
    loop {
        let free: Vec<&Path> = imports.iter().filter(|(_, of)| of.is_empty()).map(|(path, _)| *path).collect();
        if free.is_empty() {
            break;
        }
        imports.retain(|path, _| !free.contains(path));
        for of in imports.values_mut() {
            of.retain(|path| !free.contains(&path.as_path()));
        }
    }
    assert!(imports.is_empty(), "these files import each other in a circle: {imports:#?}");
}

#[test]
fn page_describes_every_module() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for module in layers().keys() {
        let lines = [format!("- `{module}`"), format!("- `{module}/`"), format!("- `{module}.rs`")];
        assert!(lines.iter().any(|line| page.contains(line)), "docs/architecture.md has no line for {module}");
    }
}
