import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;

/** A thread for each connection. */
public class Sockets {
    public static void main(String[] args) throws IOException {
        ServerSocket listener = new ServerSocket(Integer.parseInt(args[0]), 128, InetAddress.getByName("127.0.0.1"));
        while (true) {
            Socket connection = listener.accept();
            new Thread(() -> echo(connection)).start();
        }
    }

    static void echo(Socket connection) {
        try (connection) {
            connection.getInputStream().transferTo(connection.getOutputStream());
        } catch (IOException e) {
            System.err.println("sockets: " + e);
        }
    }
}
