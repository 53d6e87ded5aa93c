//! The program `lumina-serve`: its arguments, and what it does. Other programs have it as a command of theirs.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as Arguments;
use lumina_mgpt::{Compute, EngineOptions, Handle, HandleOptions, Lumina, Weights, keep_freed_memory};
use tracing_subscriber::EnvFilter;

use crate::{Options, bind, serve_until_signal};

/// Serves a Lumina-mGPT or Chameleon checkpoint by OpenAI's protocol: images, edits, chat.
#[derive(Debug, Arguments)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// The checkpoint.
#[derive(Debug, Arguments)]
struct ModelArgs {
    /// Folder or GGUF file of a checkpoint, or its name on the Hugging Face hub if downloads are compiled in
    #[arg(long, value_name = "PATH_OR_NAME", env = "LUMINA_MODEL", help_heading = "Model")]
    model: PathBuf,
    /// Folder of `vqgan.ckpt` and `vqgan.yaml`, if they are not in the checkpoint's folder
    #[arg(long, value_name = "PATH", help_heading = "Model")]
    image_tokenizer: Option<PathBuf>,
    /// Folder of `tokenizer.json`, if it is not in the checkpoint's folder
    #[arg(long, value_name = "PATH", help_heading = "Model")]
    tokenizer: Option<PathBuf>,
    /// Folder of a LoRA adapter for the checkpoint
    #[arg(long, value_name = "PATH", help_heading = "Model")]
    adapter: Option<PathBuf>,
    /// The size in pixels that the checkpoint was trained for [default: what it states, else 768]
    #[arg(long, value_name = "PIXELS", help_heading = "Model")]
    target_size: Option<u32>,
    /// Where to compute: `cpu`, `cuda`, `cuda:1`, `cuda:all`, `wgpu`, as compiled in; `cuda+cpu` shares a model that is
    /// too large [default: cpu]
    #[arg(long, visible_alias = "device", help_heading = "Compute")]
    compute: Option<Compute>,
    /// Format of linear weights: `as-stored`, `compute-type`, `bf16`, `f16`, `q8` or `q4` [default: the device's]
    #[arg(long, help_heading = "Compute")]
    weights: Option<Weights>,
}

/// What is served and where, whatever opens the model: programs with arguments of their own for that have these
/// beside them.
#[derive(Debug, Arguments)]
pub struct ServerArgs {
    /// The model's name in answers [default: the last part of `--model`]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    model_id: Option<String>,
    /// The most megabytes of keys and values of all requests together [default: as many as they need]
    #[arg(long, value_name = "MB", help_heading = "Compute")]
    kv_budget: Option<u64>,
    /// The most requests that run at once
    #[arg(long, default_value_t = EngineOptions::default().max_sequences, help_heading = "Compute")]
    max_sequences: usize,
    /// The most requests that wait; further ones are answered 429
    #[arg(long, default_value_t = HandleOptions::default().max_waiting, help_heading = "Compute")]
    max_waiting: usize,
    /// The address to listen at; 0.0.0.0 is all of this machine's, for which give an `--api-key`
    #[arg(long, default_value = "127.0.0.1", help_heading = "Server")]
    host: String,
    /// The port to listen at; 0 is any
    #[arg(long, default_value_t = 8080, help_heading = "Server")]
    port: u16,
    /// A key that requests must have, `Authorization: Bearer KEY`; may be given several times
    #[arg(long, value_name = "KEY", env = "LUMINA_API_KEY", hide_env_values = true, help_heading = "Server")]
    api_key: Vec<String>,
    /// An origin whose pages may call the server, such as `https://example.org`; may be given several times
    #[arg(long, value_name = "ORIGIN", help_heading = "Server")]
    cors_origin: Vec<String>,
    /// A name by which the server is called, besides those of loopback, where it listens there and asks for no key;
    /// may be given several times
    #[arg(long, value_name = "HOST", help_heading = "Server")]
    allowed_host: Vec<String>,
    /// The most megabytes of a request
    #[arg(long, value_name = "MB", default_value_t = 32, help_heading = "Server")]
    max_body: usize,
    /// The most images that a request may ask for
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Server")]
    max_n: u32,
    /// The most connections at one time; further ones wait until one ends
    #[arg(long, value_name = "N", default_value_t = 512, help_heading = "Server")]
    max_connections: usize,
    /// Seconds that a request may take to arrive, and a connection may be kept without one
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = "Server")]
    body_timeout: u64,
    /// Seconds after which a client that takes nothing more of its answer is cut off, and its request cancelled
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = "Server")]
    write_timeout: u64,
    /// Seconds that running requests have to end after Ctrl-C or SIGTERM; a second signal ends at once
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Server")]
    grace: u64,
    /// What is logged, such as `info`, `lumina_serve=debug,warn` [default: info]
    #[arg(long, env = "LUMINA_LOG", help_heading = "Server")]
    log: Option<String>,
}

/// Any error of the program.
pub type AnyError = Box<dyn std::error::Error + Send + Sync>;

impl ServerArgs {
    /// The options for the model at a path.
    fn options(&self, model: &Path) -> crate::Result<Options> {
        let last = model.file_name().map(|name| name.to_string_lossy().into_owned());
        let id = self.model_id.clone().or(last).unwrap_or_else(|| "lumina-mgpt".to_owned());
        let options = Options::new().model_id(id)?.max_n(self.max_n)?;
        let options = options.max_body_bytes(self.max_body.saturating_mul(1 << 20))?;
        let options = options.max_connections(self.max_connections)?.grace(Duration::from_secs(self.grace));
        let options = options.body_timeout(Duration::from_secs(self.body_timeout))?;
        let options = options.write_timeout(Duration::from_secs(self.write_timeout))?;
        let options = self.cors_origin.iter().try_fold(options, |options, origin| options.cors_origin(origin))?;
        self.api_key.iter().try_fold(options, |options, key| options.api_key(key))
    }

    /// The options of a server at an address. At one of loopback, where no key is asked for, names are checked.
    fn options_at(&self, model: &Path, address: SocketAddr) -> crate::Result<Options> {
        let options = self.options(model)?;
        if !address.ip().is_loopback() || !self.api_key.is_empty() {
            return Ok(options);
        }
        let own = [
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "[::1]".to_owned(),
            SocketAddr::new(address.ip(), 0).to_string(),
        ];
        let own = own.into_iter().map(|name| name.trim_end_matches(":0").to_owned());
        own.chain(self.allowed_host.iter().cloned()).try_fold(options, |options, host| options.host(&host))
    }

    fn engine(&self) -> HandleOptions {
        let engine = EngineOptions::default().max_sequences(self.max_sequences);
        let engine = self.kv_budget.map_or(engine.clone(), |mb| engine.kv_budget_bytes(mb.saturating_mul(1_000_000)));
        HandleOptions::default().engine(engine).max_waiting(self.max_waiting)
    }

    /// Opens a model, whose path names it in answers, and serves it until a signal ends it. Logs go to the standard
    /// error output.
    ///
    /// # Errors
    /// What is wrong with the arguments, the model or the address.
    pub fn run(&self, model: &Path, open: impl FnOnce() -> Result<Lumina, AnyError>) -> Result<(), AnyError> {
        let filter = EnvFilter::builder().parse(self.log.as_deref().unwrap_or("info"));
        let is_valid = filter.is_ok();
        let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
        let colours = std::io::stderr().is_terminal();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
        if !is_valid {
            return Err("`--log` is no filter, such as `info` or `lumina_serve=debug,warn`".into());
        }
        // What is wrong with them is said before minutes of opening, and the port is taken.
        self.options(model)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let listener = runtime.block_on(bind(&self.host, self.port))?;
        let address = listener.local_addr()?;
        let options = self.options_at(model, address)?;
        if !address.ip().is_loopback() && self.api_key.is_empty() {
            tracing::warn!("others can reach this server, and it asks for no key: give `--api-key`");
        }
        let model = open()?;
        let handle = Handle::new(&model, self.engine())?;
        tracing::info!("listening at http://{address}");
        let served = runtime.block_on(serve_until_signal(listener, handle, options));
        // Nothing is waited for any more, such as an image that is being encoded for a client that is gone.
        runtime.shutdown_background();
        Ok(served?)
    }
}

impl ModelArgs {
    fn open(&self) -> lumina_mgpt::Result<Lumina> {
        keep_freed_memory(1 << 30);
        let mut builder = Lumina::from_pretrained(&self.model);
        let compute = self.compute.clone().or_else(|| Compute::available().into_iter().next());
        if let Some(compute) = compute {
            builder = builder.compute(match self.weights {
                Some(weights) => compute.weights(weights),
                None => compute,
            });
        }
        if let Some(px) = self.target_size {
            builder = builder.target_size_px(px);
        }
        if let Some(path) = &self.image_tokenizer {
            builder = builder.image_tokenizer(path);
        }
        if let Some(path) = &self.tokenizer {
            builder = builder.tokenizer(path);
        }
        if let Some(path) = &self.adapter {
            builder = builder.adapter(path);
        }
        builder.load()
    }
}

/// Opens the model, and serves it: [`ServerArgs::run`].
///
/// # Errors
/// What is wrong with the arguments, the model or the address.
pub fn run(args: &Args) -> Result<(), AnyError> {
    args.server.run(&args.model.model, || Ok(args.model.open()?))
}
