//! Where the description of a message comes from.

use std::fs;
use std::path::{Path, PathBuf};

use prost_reflect::{DescriptorPool, MessageDescriptor};
use pype_plugin::{Error, ErrorKind, Result};

/// A compiled descriptor, or what it is compiled from.
#[derive(Debug)]
pub(crate) enum Origin {
    Descriptor(PathBuf),
    Proto { file: PathBuf, include: Vec<PathBuf> },
}

impl Origin {
    pub(crate) fn of(descriptor: Option<String>, proto: Option<String>, include: Vec<PathBuf>) -> Result<Self> {
        let refuse = |message| {
            let error = Error::new(ErrorKind::Config, "no-descriptor", message);
            Err(error.hint("say one of them: `proto: order.proto`, or `descriptor: order.bin`"))
        };
        match (descriptor, proto) {
            (Some(file), None) => Ok(Self::Descriptor(file.into())),
            (None, Some(file)) => Ok(Self::Proto { file: file.into(), include }),
            (None, None) => refuse("the configs have neither `descriptor` nor `proto`"),
            (Some(_), Some(_)) => refuse("the configs have both `descriptor` and `proto`"),
        }
    }

    /// The message of that full name. Reads files.
    pub(crate) fn message(&self, name: &str) -> Result<MessageDescriptor> {
        let pool = match self {
            Self::Descriptor(file) => read(file)?,
            Self::Proto { file, include } => compile(file, include)?,
        };
        pool.get_message_by_name(name).ok_or_else(|| self.no_such_message(&pool, name))
    }

    fn no_such_message(&self, pool: &DescriptorPool, name: &str) -> Error {
        let (Self::Descriptor(file) | Self::Proto { file, .. }) = self;
        let own = pool.all_messages().filter(|message| !message.full_name().starts_with("google.protobuf."));
        let known: Vec<_> = own.take(10).map(|message| format!("`{}`", message.full_name())).collect();
        let message = format!("`{}` has no message `{name}`", file.display());
        Error::new(ErrorKind::Config, "no-such-message", message).hint(format!("it has {}", known.join(", ")))
    }
}

fn read(file: &Path) -> Result<DescriptorPool> {
    let bytes = fs::read(file).map_err(|error| {
        let message = format!("cannot read `{}`", file.display());
        Error::from(error).message(message)
    })?;
    DescriptorPool::decode(bytes.as_slice()).map_err(|error| {
        let message = format!("`{}` holds no `FileDescriptorSet` that stands for itself", file.display());
        Error::new(ErrorKind::Config, "bad-descriptor", message).caused_by(error).hint(
            "make it with `protoc --include_imports --descriptor_set_out=…`, or give the `.proto` file as `proto`",
        )
    })
}

fn compile(file: &Path, include: &[PathBuf]) -> Result<DescriptorPool> {
    let own = file.parent().map(Path::to_owned);
    let include: Vec<_> = if include.is_empty() { own.into_iter().collect() } else { include.to_vec() };
    let compiled = protox::Compiler::new(include).and_then(|mut compiler| {
        compiler.include_imports(true).open_file(file)?;
        Ok(compiler.descriptor_pool())
    });
    compiled.map_err(|error| {
        let message = format!("`{}` does not compile: {error}", file.display());
        Error::new(ErrorKind::Config, "bad-proto", message).hint("imports are looked for in the folders of `include`")
    })
}
