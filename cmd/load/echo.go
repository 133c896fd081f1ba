package load

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// messagesPerConnection makes a connection of an Echo client old enough to span an upgrade, and still come to an end.
const messagesPerConnection = 8

// echoClient sends messages over a stream connection, closes its side after some of them, and expects the server's end then.
type echoClient struct {
	link
	sent    int
	message []byte
	answer  []byte
}

func (c *echoClient) exchange() (Source, error) {
	if err := c.open(); err != nil {
		return Source{}, err
	}
	conn := c.conn
	err := c.oneMessage()
	if err != nil {
		err = conn.broke(err)
		c.close()
	}
	return Source{}, err
}

func (c *echoClient) oneMessage() error {
	c.sent++
	c.message = fmt.Appendf(c.message[:0], "%0*d", payloadSize, c.sent)
	if err := c.conn.send(c.message, c.load.cfg.Timeout); err != nil {
		return err
	}
	c.answer = append(c.answer[:0], c.message...)
	if _, err := io.ReadFull(c.conn.in, c.answer); err != nil {
		return err
	}
	if !bytes.Equal(c.answer, c.message) {
		return fail(Wrong, "the message that came back is not the one sent")
	}
	c.conn.used = true
	if c.sent%messagesPerConnection == 0 {
		return c.finish()
	}
	return nil
}

// finish ends the connection from this side, and waits for the server's end of it.
func (c *echoClient) finish() error {
	defer c.close()
	half, ok := c.conn.Conn.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	if err := half.CloseWrite(); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, c.conn.in)
	if err == nil && n > 0 {
		return fail(Wrong, "%d bytes came after the last message", n)
	}
	return err
}

// packetClient sends datagrams and waits for each to come back. A datagram that does not is a timeout.
type packetClient struct {
	link
	sent int
	in   [2048]byte
}

func (c *packetClient) exchange() (Source, error) {
	err := c.onePacket()
	if err != nil {
		c.close() // what comes back late must not be taken for the next answer
	}
	return Source{}, err
}

func (c *packetClient) onePacket() error {
	if err := c.open(); err != nil {
		return err
	}
	c.sent++
	packet := fmt.Appendf(nil, "packet %d", c.sent)
	if err := c.conn.SetDeadline(time.Now().Add(c.load.cfg.Timeout)); err != nil {
		return err
	}
	if _, err := c.conn.Write(packet); err != nil {
		return err
	}
	n, err := c.conn.Read(c.in[:])
	if err != nil {
		return err
	}
	if !bytes.Equal(c.in[:n], packet) {
		return fail(Wrong, "%q came back for %q", c.in[:n], packet)
	}
	return nil
}
