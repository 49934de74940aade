//! What the environment variables say, seen by a process of its own for each setting.

use std::path::Path;

use topshelf_models::Store;
use topshelf_models::pull::HubSettings;

use super::support::Fixture;

const VARIABLES: [&str; 9] = [
    "TOPSHELF_HOME",
    "XDG_DATA_HOME",
    "LOCALAPPDATA",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "XDG_CACHE_HOME",
];

/// What a process prints that has only these of the variables.
fn seen(fixture: &Fixture, test: &str, variables: &[(&str, &Path)]) -> String {
    let mut child = fixture.child(test);
    for name in VARIABLES {
        child.env_remove(name);
    }
    let output = child.env("HOME", &fixture.root).envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn the_store_lies_where_the_environment_says() {
    if Fixture::of_parent().is_some() {
        println!("root={}", Store::open_default().unwrap().root().display());
        return;
    }
    let fixture = Fixture::new(b"");
    let root = &fixture.root;
    let root_of = |variables: &[(&str, &Path)]| {
        seen(&fixture, "it::environment::the_store_lies_where_the_environment_says", variables)
    };
    let line = |path: &Path| format!("root={}\n", path.display());

    let home = root.join("home");
    assert!(root_of(&[("TOPSHELF_HOME", &home)]).contains(&line(&home.join("models"))));
    if cfg!(target_os = "linux") {
        let data = root.join("data");
        let there = root_of(&[("XDG_DATA_HOME", &data)]);
        assert!(there.contains(&line(&data.join("topshelf/models"))), "{there}");
        let usual = line(&root.join(".local/share/topshelf/models"));
        for ignored in
            [&[][..], &[("TOPSHELF_HOME", Path::new(""))], &[("XDG_DATA_HOME", Path::new("a"))]]
        {
            let there = root_of(ignored);
            assert!(there.contains(&usual), "{there}");
        }
    }
}

#[test]
fn the_hub_is_where_hugging_faces_own_tools_look() {
    if Fixture::of_parent().is_some() {
        let settings = HubSettings::from_env();
        let (cache, token) = (settings.cache.unwrap(), settings.token.unwrap_or_default());
        println!("{} {token} {} {}", cache.display(), settings.endpoint, settings.offline);
        return;
    }
    let fixture = Fixture::new(b"");
    let root = &fixture.root;
    let told = |variables: &[(&str, &Path)], cache: &Path, rest: &str| {
        let test = "it::environment::the_hub_is_where_hugging_faces_own_tools_look";
        let text = seen(&fixture, test, variables);
        let line = format!("{} {rest}\n", cache.display());
        assert!(text.contains(&line), "{text} has no {line}");
    };
    let (home, cache, text) = (root.join("hf"), root.join("cache"), Path::new);
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("token"), "kept\n").unwrap();
    let hub = "https://huggingface.co";

    told(&[], &root.join(".cache/huggingface/hub"), &format!(" {hub} false"));
    told(&[("XDG_CACHE_HOME", &cache)], &cache.join("huggingface/hub"), &format!(" {hub} false"));
    told(&[("HF_HOME", &home)], &home.join("hub"), &format!("kept {hub} false"));
    told(
        &[("HF_HOME", &home), ("HF_HUB_CACHE", &cache), ("HF_TOKEN", text("mine"))],
        &cache,
        &format!("mine {hub} false"),
    );
    told(
        &[("HF_ENDPOINT", text("http://mirror/")), ("HF_HUB_OFFLINE", text("1"))],
        &root.join(".cache/huggingface/hub"),
        " http://mirror true",
    );
}
