package nl

import "context"

// A Logger gets each message that a connection of a family sends (request) and
// receives.
type Logger func(family int, request bool, m Message)

// log is the logger of new connections; nil for none.
var log Logger

// LogAll gives a logger to the connections that are made from now on. It is called
// while the program is initialised; see package nldebug.
func LogAll(l Logger) { log = l }

// Log gives the connection another logger, or with nil none.
func (c *Conn) Log(l Logger) {
	select {
	case <-c.turn:
		c.log = l
		c.turn <- struct{}{}
	case <-c.done:
	}
}

// recv reads a datagram of answers.
func (c *Conn) recv(ctx context.Context, buf []byte) ([]byte, error) {
	b, err := c.sock.recv(ctx, buf)
	if err == nil && c.log != nil {
		for m, next := cutMessage(b, 0); next > 0; m, next = cutMessage(b, next) {
			c.log(c.family, false, m)
		}
	}
	return b, err
}
