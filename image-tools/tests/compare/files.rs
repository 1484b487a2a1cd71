//! The files alone, of images that unlike builders have made.

use crate::fixture::{File, Image};
use serde_json::json;

fn compared(alter: impl Fn(&mut Image)) -> (i32, String) {
    crate::altered_with(&["--files"], alter)
}

#[test]
fn neither_the_configuration_nor_the_form_of_a_layer_counts() {
    let (code, text) = compared(|image| {
        image.settings()["WorkingDir"] = json!("/");
        image.ustar = true;
        image.file("bin/one").mode = 0o100_555;
        image.layers[1].reverse();
    });
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with("the files are the same\n") && !text.contains("DIFFERS"), "{text}");
}

#[test]
fn each_difference_of_a_file_counts() {
    type Alteration = (fn(&mut Image), &'static str);
    let alterations: [Alteration; 6] = [
        (|image| image.file("etc/passwd").content[0] = b'R', "etc/passwd content: sha256:"),
        (|image| image.file("bin/one").mode = 0o4555, "bin/one mode: 0555 in the first, 4555 in the second"),
        (|image| image.file("bin/one").uid = 1000, "bin/one uid: 0 in the first, 1000"),
        (|image| image.layers[1].push(File::new("etc/shadow", "x")), "etc/shadow (file"),
        (|image| drop(image.layers.pop()), "number of layers: 2 in the first, 1 in the second"),
        (|image| image.layers.push(vec![File::new("x", "x")]), "number of layers: 2 in the first, 3 in the second"),
    ];
    for (alter, named) in alterations {
        let (code, text) = compared(alter);
        assert_eq!(code, 1, "{named}: {text}");
        assert!(text.contains(named) && text.ends_with("the files are not the same\n"), "no {named:?} in:\n{text}");
    }
}
