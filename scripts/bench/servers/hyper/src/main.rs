use hyper::service::{make_service_fn, service_fn};
use hyper::{body, Body, Error, Request, Response, Server};
use tokio::signal::unix::{signal, SignalKind};

async fn hello(request: Request<Body>) -> Result<Response<Body>, Error> {
    body::to_bytes(request.into_body()).await?;
    Ok(Response::new(Body::from("hello\n")))
}

fn main() {
    let at = std::env::args().nth(1).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).unwrap();
        Server::bind(&at)
            .serve(make_service_fn(|_| async { Ok::<_, Error>(service_fn(hello)) }))
            .with_graceful_shutdown(async move { term.recv().await; })
            .await
            .unwrap();
    });
}
