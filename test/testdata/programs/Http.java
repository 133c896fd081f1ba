import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

/** The server that comes with Java. TERM ends it at once. */
public class Http {
    static final String GENERATION = System.getenv().getOrDefault("GRACE_GENERATION", "0");

    public static void main(String[] args) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 128);
        server.createContext("/", exchange -> answer(exchange, "hello\n".getBytes()));
        server.createContext("/echo", exchange -> answer(exchange, exchange.getRequestBody().readAllBytes()));
        server.createContext("/slow", exchange -> {
            pause(300);
            answer(exchange, "hello\n".getBytes());
        });
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
    }

    static void answer(HttpExchange exchange, byte[] body) throws IOException {
        exchange.getResponseHeaders().set("X-Generation", GENERATION);
        exchange.sendResponseHeaders(200, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    static void pause(int milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
