package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// probe is the command in a box. It does what the lines of its input say, and prints a line for each.
func probe() {
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, unix.SIGTERM)
	var held net.Conn
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.Fields(in.Text())
		var result string
		var err error
		switch what := words[0]; what {
		case "ready":
		case "tcp", "udp":
			err = reach(what, words[1])
		case "from": // an address that the box does not have, a packet to another
			err = sendFrom(words[1], words[2])
		case "hold": // a connection
			if held, err = net.DialTimeout("tcp", words[1], 3*time.Second); err == nil {
				err = greeted(held)
			}
		case "held": // whether it goes on
			err = echo(held)
		case "closed": // whether a connection does not begin any more, after a while
			err = closes(words[1])
		case "dns": // NAME TYPE [NETWORK [SERVER]]
			result, err = query(append(words[1:], []string{"", "", "udp", resolverAddr}[len(words)-1:]...))
		case "lookup": // as the C library and Go look up, by /etc/resolv.conf
			var addrs []string
			addrs, err = (&net.Resolver{PreferGo: true}).LookupHost(context.Background(), words[1])
			result = " " + strings.Join(addrs, " ")
		case "terminated":
			<-terms
		case "child": // leaves a process behind
			err = exec.Command("sleep", "600").Start()
		case "enter": // the namespace of another process
			err = enterNS(words[1])
		case "exit":
			status, _ := strconv.Atoi(words[1])
			os.Exit(status)
		default:
			err = errors.New("what?")
		}
		if err != nil {
			fmt.Println("failed:", oneLine(err))
			continue
		}
		fmt.Println("ok" + result)
	}
}

func reach(network, address string) error {
	c, err := net.DialTimeout(network, address, 3*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if network == "udp" {
		return echo(c)
	}
	return greeted(c)
}

func sendFrom(source, to string) error {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}, Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1) })
		return errors.Join(err, cerr)
	}}
	c, err := d.Dial("udp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte("forged"))
	return err
}

func greeted(c net.Conn) error {
	c.SetDeadline(time.Now().Add(3 * time.Second))
	b := make([]byte, 6)
	if _, err := c.Read(b); err != nil {
		return err
	}
	if string(b) != "hello\n" {
		return fmt.Errorf("got %q", b)
	}
	return nil
}

func echo(c net.Conn) error {
	c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Write([]byte("ping\n")); err != nil {
		return err
	}
	b := make([]byte, 5)
	_, err := c.Read(b)
	return err
}

// closes connects again and again until that is denied.
func closes(address string) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if reach("tcp", address) != nil {
			return nil
		}
	}
	return errors.New("it is open")
}

// query asks a resolver and returns the result's code and the number of answers.
func query(words []string) (string, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(words[0]), dns.StringToType[words[1]])
	client := dns.Client{Net: words[2], Timeout: 5 * time.Second}
	a, _, err := client.Exchange(m, words[3])
	if err != nil {
		return "", err
	}
	truncated := ""
	if a.Truncated {
		truncated = " truncated"
	}
	return fmt.Sprintf(" %s %d%s", dns.RcodeToString[a.Rcode], len(a.Answer), truncated), nil
}

func enterNS(pid string) error {
	fd, err := unix.Open("/proc/"+pid+"/ns/net", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWNET)
}
