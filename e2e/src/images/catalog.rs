//! The images that the tests, critest and the bench run, made of Debian packages and two small C programs.

use std::sync::OnceLock;

use anyhow::Result;

use super::layer::{Entry, Layer, Node};
use super::{Image, debian, program};

/// Where critest expects its images, below the registry that stands in for all of theirs.
const STAGING: &str = "k8s-staging-cri-tools";
const E2E: &str = "e2e-test-images";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
default-user:x:1000:1000:user:/home:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
";
const GROUP: &str = "root:x:0:
daemon:x:1:
www-data:x:33:
default-user:x:1000:
group-defined-in-image:x:50000:default-user
nogroup:x:65534:
";

const NGINX_CONF: &str = "user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
error_log /dev/stderr;
events { worker_connections 64; }
http {
    access_log off;
    server { listen PORT; location / { root /www; } }
}
";

/// A shell with the usual tools, `pgrep` and `ipcs`: applets are hard links to one program.
pub fn busybox() -> Result<Image> {
    static LAYER: OnceLock<Layer> = OnceLock::new();
    let layer = match LAYER.get() {
        Some(layer) => layer.clone(),
        None => {
            let layer = base_layer();
            let layer = debian::add_programs(layer, &["bin/busybox", "usr/bin/pgrep", "usr/bin/ipcs"])?;
            LAYER.get_or_init(|| layer).clone()
        }
    };
    let layer = debian::add_applets(layer)?.kept("busybox");
    let mut image = Image::of(layer).cmd(&["sh"]);
    image.run.env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()];
    Ok(image)
}

fn base_layer() -> Layer {
    let dirs =
        ["bin", "dev", "etc", "home", "lib", "lib/x86_64-linux-gnu", "lib64", "mnt", "proc", "root", "run"]
            .into_iter()
            .chain([
                "sys",
                "usr",
                "usr/bin",
                "usr/sbin",
                "usr/local",
                "usr/local/bin",
                "var",
                "var/log",
                "var/lib",
            ]);
    dirs.fold(Layer::default(), Layer::dir)
        .add("tmp", 0o1777, Node::Dir)
        .add("var/tmp", 0o1777, Node::Dir)
        .symlink("var/run", "/run")
        .file("etc/passwd", 0o644, PASSWD)
        .file("etc/group", 0o644, GROUP)
}

/// nginx on a port, with busybox below it.
pub fn nginx(port: u16) -> Result<Image> {
    let layer = debian::add_programs(Layer::default(), &["usr/sbin/nginx"])?
        .dir("etc/nginx")
        .file("etc/nginx/nginx.conf", 0o644, NGINX_CONF.replace("PORT", &port.to_string()))
        .dir("var/log/nginx")
        .dir("var/lib/nginx")
        .dir("www")
        .file("www/index.html", 0o644, "<html><body>nginx</body></html>\n")
        .kept(&format!("nginx-{port}"));
    Ok(busybox()?.layer(layer).cmd(&["nginx", "-g", "daemon off;"]))
}

/// busybox's web server on port 80; says `httpd` on its standard output when it starts.
pub fn httpd() -> Result<Image> {
    let page = Layer::default().dir("www").file("www/index.html", 0o644, "<html><body>httpd</body></html>\n");
    Ok(busybox()?.layer(page).cmd(&["sh", "-c", "echo httpd serves /www; exec httpd -f -v -p 80 -h /www"]))
}

/// One static program with the setuid bit, which prints its effective uid.
pub fn setuid_probe() -> Result<Image> {
    let layer = base_layer().file("probe", 0o4755, program::read("nonewprivs")?).kept("nonewprivs");
    Ok(Image::of(layer).cmd(&["/probe"]))
}

/// busybox with one of the programs of e2e/images.
pub fn with_program(name: &str) -> Result<Image> {
    let layer = Layer::default().file(&format!("bin/{name}"), 0o755, program::read(name)?).kept(name);
    Ok(busybox()?.layer(layer))
}

/// One static program that waits.
pub fn pause() -> Result<Image> {
    let mut image = Image::of(Layer::default().file("pause", 0o755, program::read("pause")?).kept("pause"));
    image.run.entrypoint = vec!["/pause".into()];
    Ok(image)
}

/// An image that is small and unlike any other of a different `name`.
pub fn tiny(name: &str) -> Image {
    let mut layer = Layer::default();
    layer.push(Entry { path: "name".into(), mode: 0o644, uid: 0, gid: 0, node: Node::File(name.into()) });
    Image::of(layer).cmd(&["/name"])
}

/// Every image that critest pulls by a name we can give it, as (repository, tag, image).
pub fn conformance() -> Result<Vec<(String, &'static str, Image)>> {
    let e2e = |name: &str| format!("{E2E}/{name}");
    let staging = |name: &str| format!("{STAGING}/{name}");
    let busybox = busybox()?;
    let mut images = vec![
        (e2e("busybox"), "1.29-2", busybox.clone()),
        (e2e("nginx"), "1.14-2", nginx(80)?),
        (e2e("httpd"), "2.4.39-4", httpd()?),
        (e2e("nonewprivs"), "1.3", setuid_probe()?),
        ("pause".into(), "3.9", pause()?),
        (staging("hostnet-nginx-amd64"), "latest", nginx(12003)?),
        (staging("test-image-predefined-group"), "latest", busybox.clone().user("1000")),
        (staging("test-image-digest"), "latest", busybox.clone().label("name", "digest")),
    ];
    for (name, user) in [
        ("uid", "1002"),
        ("username", "www-data"),
        ("uid-group", "1003:users"),
        ("username-group", "www-data:100"),
    ] {
        images.push((staging(&format!("test-image-user-{name}")), "latest", busybox.clone().user(user)));
    }
    for (name, tag) in [
        ("test-image-latest", "latest"),
        ("test-image-tag", "test"),
        ("test-image-tag", "all"),
        ("test-image-1", "latest"),
        ("test-image-2", "latest"),
        ("test-image-3", "latest"),
    ] {
        images.push((staging(name), tag, busybox.clone().label("name", &format!("{name}:{tag}"))));
    }
    for tag in ["1", "2", "3"] {
        images.push((staging("test-image-tags"), tag, busybox.clone().label("name", "tags")));
    }
    Ok(images)
}
