pub fn run(_: service::Service) -> Result<(), service::Fatal> {
    Ok(())
}
