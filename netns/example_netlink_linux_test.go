package netns_test

import (
	"context"
	"fmt"
	"log"

	"github.com/boxwire/boxwire/netns"
	"github.com/google/nftables"
	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The socket is in the namespace, whatever library encodes what is sent: here the message types of rtnetlink.
func ExampleNS_DialNetlink() {
	ctx := context.Background()
	box, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer box.Close()
	c, err := box.DialNetlink(ctx, unix.NETLINK_ROUTE, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	request, err := (&rtnetlink.LinkMessage{Index: 1}).MarshalBinary()
	if err != nil {
		log.Fatal(err)
	}
	replies, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request},
		Data:   request,
	})
	if err != nil {
		log.Fatal(err)
	}
	var link rtnetlink.LinkMessage
	if err := link.UnmarshalBinary(replies[0].Data); err != nil {
		log.Fatal(err)
	}
	fmt.Println(link.Attributes.Name)
	// Output: lo
}

// A library that opens its own sockets takes the descriptor: google/nftables does, for tables of the caller's own.
func ExampleNS_WithFd() {
	ctx := context.Background()
	box, err := netns.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer box.Close()
	err = box.WithFd(func(fd int) error {
		c, err := nftables.New(nftables.WithNetNSFd(fd))
		if err != nil {
			return err
		}
		c.AddTable(&nftables.Table{Name: "mine", Family: nftables.TableFamilyINet})
		if err := c.Flush(); err != nil {
			return err
		}
		tables, err := c.ListTables()
		for _, table := range tables {
			fmt.Println(table.Name)
		}
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: mine
}
