//! `berth image`: list, pull, remove, import, verify, gc, through the daemon's socket; and explain, without it. Nothing here
//! touches images itself.

mod gc;
mod verify;

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use berth_proto::admin::CHUNK_MAX;
use berth_proto::admin::v1::{Credentials, ImportChunk, ImportedImage, PullRequest};
use berth_proto::cri::v1::{Image, ImageSpec, ImageStatusRequest, ListImagesRequest, RemoveImageRequest};
use clap::{Args, Subcommand};
use indicatif::{HumanBytes, ProgressBar};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::bars;
use super::client::{Client, said};
use super::explain::Explain;
use super::print;
use super::table::table;
use crate::images::reference::Reference;
use crate::layout;

/// `berth image`
#[derive(Args)]
pub(super) struct ImageArgs {
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", global = true, env = "BERTH_SOCKET", default_value = layout::DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Subcommand)]
enum ImageCommand {
    /// List the images of this node
    #[command(visible_alias = "list")]
    Ls {
        /// Print a JSON array instead of a table; sizes are in bytes
        #[arg(long)]
        json: bool,
        /// Print whole ids only
        #[arg(long, short, conflicts_with = "json")]
        quiet: bool,
    },
    /// Pull an image from its registry
    Pull(Pull),
    /// Tell which hosts a pull would ask, in which order, and with whose credentials; no daemon is needed
    Explain(Explain),
    /// Remove images with all their names
    #[command(visible_alias = "remove")]
    Rm {
        /// Names, digests or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Import the images of an archive
    #[command(
        long_about = "Import the images of an archive: a tar of an OCI layout, or what `docker save` writes; plain or gzip"
    )]
    Import {
        /// The archive; - reads it from standard input
        #[arg(value_name = "FILE.tar")]
        file: PathBuf,
    },
    /// Compare images on the disk with what was written, and take what is damaged out of use
    #[command(
        long_about = "Compare images on the disk with what was written. What is damaged goes out of use: its images are gone until \
they are pulled again, containers that run on it run on. Fails if anything is damaged."
    )]
    Verify(verify::Verify),
    /// Free what no image and no container uses
    #[command(
        long_about = "Free what no image and no container uses: layers and blobs of no image, and what was cut short. Images \
themselves stay: the kubelet removes those."
    )]
    Gc(gc::Gc),
}

#[derive(Args)]
struct Pull {
    /// For instance registry.k8s.io/pause:3.10, or a name with @sha256:...
    image: String,
    /// Who asks; the password follows a colon, or comes by --password-stdin
    #[arg(long, value_name = "NAME[:PASSWORD]")]
    user: Option<String>,
    /// Read the password from standard input, where no other process of this node can see it
    #[arg(long, requires = "user")]
    password_stdin: bool,
}

impl ImageArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let done = runtime.block_on(self.ask());
        // A read of standard input that never ends must not hold up the end.
        runtime.shutdown_background();
        done
    }

    async fn ask(self) -> anyhow::Result<()> {
        // What is wrong with the command itself is told before the daemon is asked for.
        let connect = Client::connect(&self.socket);
        match self.command {
            ImageCommand::Ls { json, quiet } => list(connect.await?, json, quiet).await,
            ImageCommand::Pull(pull) => {
                let request = pull.request()?;
                follow(connect.await?, request).await
            }
            ImageCommand::Explain(explain) => explain.run(),
            ImageCommand::Rm { images } => remove(connect.await?, &images).await,
            ImageCommand::Import { file } => {
                let archive = open(&file)?;
                import(connect.await?, archive, &file).await
            }
            ImageCommand::Verify(verify) => verify::verify(connect.await?, verify).await,
            ImageCommand::Gc(gc) => gc::gc(connect.await?, gc).await,
        }
    }
}

async fn list(mut client: Client, json: bool, quiet: bool) -> anyhow::Result<()> {
    let listed = client.images.list_images(ListImagesRequest::default()).await.map_err(said)?;
    let images = listed.into_inner().images;
    if json {
        print(&format!("{:#}\n", as_json(&images)))
    } else if quiet {
        print(&images.iter().map(|image| format!("{}\n", image.id)).collect::<String>())
    } else {
        print(&table(&rows(&images), &[]))
    }
}

fn as_json(images: &[Image]) -> serde_json::Value {
    let one = |image: &Image| {
        serde_json::json!({
            "id": image.id, "tags": image.repo_tags, "digests": image.repo_digests,
            "size": image.size, "pinned": image.pinned,
        })
    };
    images.iter().map(one).collect()
}

/// One row for each tag; an image without tags has one row.
fn rows(images: &[Image]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for image in images {
        let (id, size) = (bars::short(&image.id).to_string(), HumanBytes(image.size).to_string());
        for tag in &image.repo_tags {
            let (name, tag) = tag.rsplit_once(':').unwrap_or((tag, "<none>"));
            rows.push(vec![name.into(), tag.into(), id.clone(), size.clone()]);
        }
        if image.repo_tags.is_empty() {
            let name = image.repo_digests.first().and_then(|name| name.split('@').next()).unwrap_or("<none>");
            rows.push(vec![name.into(), "<none>".into(), id, size]);
        }
    }
    rows.sort();
    rows.insert(0, ["IMAGE", "TAG", "IMAGE ID", "SIZE"].map(String::from).into());
    rows
}

impl Pull {
    fn request(self) -> anyhow::Result<PullRequest> {
        Reference::parse(&self.image).with_context(|| format!("{:?} names no image", self.image))?;
        let credentials = credentials(self.user.as_deref(), self.password_stdin, &mut std::io::stdin())?;
        Ok(PullRequest { image: self.image, credentials })
    }
}

async fn follow(mut client: Client, request: PullRequest) -> anyhow::Result<()> {
    let mut updates = client.admin.pull(request).await.map_err(said)?.into_inner();
    let mut layers = bars::Layers::new();
    while let Some(update) = updates.message().await.map_err(said)? {
        layers.show(&update.layers);
        if !update.image_id.is_empty() {
            return print(&format!("{}\n", update.image_id));
        }
    }
    bail!("the daemon ended the call before the image was whole")
}

fn credentials(
    user: Option<&str>,
    from_stdin: bool,
    stdin: &mut dyn Read,
) -> anyhow::Result<Option<Credentials>> {
    let Some(user) = user else {
        return Ok(None);
    };
    let (username, password) = match (user.split_once(':'), from_stdin) {
        (Some((name, password)), false) => (name, password.to_string()),
        (None, true) => {
            let mut password = String::new();
            stdin.read_to_string(&mut password).context("cannot read the password from standard input")?;
            (user, password.trim_end_matches(['\r', '\n']).to_string())
        }
        (Some(_), true) => bail!("--user has a password already, so --password-stdin must not be there"),
        (None, false) => bail!("--user {user} has no password: write NAME:PASSWORD, or add --password-stdin"),
    };
    ensure!(!username.is_empty(), "--user has no name");
    Ok(Some(Credentials { username: username.into(), password }))
}

/// Goes on after a failure, as rm(1) does.
async fn remove(mut client: Client, images: &[String]) -> anyhow::Result<()> {
    if let [image] = images {
        remove_one(&mut client, image).await.with_context(|| format!("cannot remove {image}"))?;
        return print(&format!("removed {image}\n"));
    }
    let mut failed = 0;
    for image in images {
        match remove_one(&mut client, image).await {
            Ok(()) => print(&format!("removed {image}\n"))?,
            Err(error) => {
                eprintln!("berth: cannot remove {image}: {error:#}");
                failed += 1;
            }
        }
    }
    ensure!(failed == 0, "{failed} of {} images not removed", images.len());
    Ok(())
}

/// CRI is content with an image that does not exist; a person who mistyped it is not.
async fn remove_one(client: &mut Client, image: &str) -> anyhow::Result<()> {
    let image = Some(ImageSpec { image: image.into(), ..Default::default() });
    let request = ImageStatusRequest { image: image.clone(), verbose: false };
    let found = client.images.image_status(request).await.map_err(said)?.into_inner().image;
    ensure!(found.is_some(), "there is no such image");
    client.images.remove_image(RemoveImageRequest { image }).await.map_err(said)?;
    Ok(())
}

async fn import(mut client: Client, archive: File, path: &Path) -> anyhow::Result<()> {
    let (chunks, stream) = mpsc::channel(4);
    let size = archive.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    let feeding = tokio::spawn(feed(tokio::fs::File::from_std(archive), bars::bytes("import", size), chunks));
    // An archive that could not be read to its end must not arrive as one that is whole.
    let (read_error, failed) = tokio::sync::oneshot::channel();
    let watched = tokio::spawn(async move {
        if let Ok(Err((error, chunks))) = feeding.await {
            let _ = read_error.send(error);
            // Held until the call is gone: closing it would say that the archive is whole.
            chunks.closed().await;
        }
    });
    let images = tokio::select! {
        Ok(error) = failed => return Err(error).with_context(|| cannot_read(path)),
        answer = client.admin.import(ReceiverStream::new(stream)) => answer.map_err(said)?.into_inner().images,
    };
    watched.abort();
    let line = |image: &ImportedImage| {
        format!("{}  {}", image.id, image.tags.join(" ")).trim_end().to_string() + "\n"
    };
    print(&images.iter().map(line).collect::<String>())
}

fn open(path: &Path) -> anyhow::Result<File> {
    let from_stdin = || Ok(std::io::stdin().as_fd().try_clone_to_owned()?.into());
    let archive = if path == Path::new("-") { from_stdin() } else { File::open(path) };
    let archive = archive.with_context(|| cannot_read(path))?;
    let metadata = archive.metadata().with_context(|| cannot_read(path))?;
    ensure!(!archive.is_terminal(), "standard input is a terminal, and no archive");
    ensure!(!metadata.is_dir(), "{} is a directory: pack it with tar first", path.display());
    Ok(archive)
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

type Chunks = mpsc::Sender<ImportChunk>;

/// On failure, gives back the channel, which is still open.
async fn feed(
    mut archive: impl AsyncRead + Unpin,
    bar: ProgressBar,
    chunks: Chunks,
) -> Result<(), (std::io::Error, Chunks)> {
    loop {
        let mut data = bytes::BytesMut::with_capacity(CHUNK_MAX);
        while data.len() < CHUNK_MAX {
            match (&mut archive).take((CHUNK_MAX - data.len()) as u64).read_buf(&mut data).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err((error, chunks)),
            }
        }
        if data.is_empty() {
            bar.finish();
            return Ok(());
        }
        bar.inc(data.len() as u64);
        if chunks.send(ImportChunk { data: data.freeze() }).await.is_err() {
            // The daemon has answered already, with what is wrong.
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_comes_from_one_place() {
        let mut none = std::io::empty();
        assert!(credentials(None, false, &mut none).unwrap().is_none());
        let both = credentials(Some("ann:a:b"), false, &mut none).unwrap().unwrap();
        assert_eq!((both.username.as_str(), both.password.as_str()), ("ann", "a:b"));
        let piped = credentials(Some("ann"), true, &mut "s3 cret\n".as_bytes()).unwrap().unwrap();
        assert_eq!(piped.password, "s3 cret");
        for (user, stdin) in [("ann", false), ("ann:x", true), (":x", false)] {
            assert!(credentials(Some(user), stdin, &mut none).is_err(), "{user} {stdin}");
        }
    }

    #[test]
    fn each_tag_has_a_row() {
        let image = |tags: &[&str], digests: &[&str]| Image {
            id: format!("sha256:{}", "0123456789abcdef".repeat(4)),
            repo_tags: tags.iter().map(ToString::to_string).collect(),
            repo_digests: digests.iter().map(ToString::to_string).collect(),
            size: 5 << 20,
            ..Default::default()
        };
        let images = [
            image(&["r.example:5000/a:1", "r.example:5000/a:2"], &[]),
            image(&[], &["q.example/b@sha256:00"]),
            image(&[], &[]),
        ];
        let text = table(&rows(&images), &[]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["IMAGE", "TAG", "IMAGE", "ID", "SIZE"]);
        assert_eq!(lines[1], ["<none>", "<none>", "0123456789ab", "5.00", "MiB"]);
        assert_eq!(lines[2][..2], ["q.example/b", "<none>"]);
        assert_eq!(lines[3][..2], ["r.example:5000/a", "1"]);
        assert_eq!(lines.len(), 5);
    }
}
