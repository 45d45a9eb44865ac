package main

import (
	"context"

	settled "github.com/boxwire/boxwire/internal/testutil/settle"
	"github.com/boxwire/boxwire/netns"
)

// settle waits until the kernel has removed the namespaces that have ended.
func settle(ctx context.Context) error {
	here, err := netns.Current()
	if err != nil {
		return err
	}
	defer here.Close()
	return settled.Namespaces(ctx, here)
}
