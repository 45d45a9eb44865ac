package wire

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// keyFile is the private key of WireGuard in the state directory, as `wg genkey` writes it.
const keyFile = "wireguard.key"

// PublicKey is the node's public key of WireGuard in base64, for its peers. The first call makes the private key, which stays in the
// state directory.
func (w *Wire) PublicKey() (string, error) {
	key, err := w.privateKey()
	if err != nil {
		return "", err
	}
	return key.PublicKey().String(), nil
}

// privateKey reads the private key, and makes it if there is none.
func (w *Wire) privateKey() (wgtypes.Key, error) {
	if w.o.Dir == "" {
		return wgtypes.Key{}, w.fail("PublicKey", keyFile, refuse.Input("no state directory is given, and mode wireguard needs one for its private key"))
	}
	path := filepath.Join(w.o.Dir, keyFile)
	key, err := readKey(path)
	if errors.Is(err, os.ErrNotExist) {
		if err = makeKey(path); err == nil || errors.Is(err, os.ErrExist) {
			key, err = readKey(path)
		}
	}
	return key, w.fail("PublicKey", path, err)
}

// readKey reads a key from a file that only its owner may read.
func readKey(path string) (wgtypes.Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return wgtypes.Key{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return wgtypes.Key{}, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return wgtypes.Key{}, fmt.Errorf("its mode is %v: others can read the private key; want -rw-------", info.Mode())
	}
	b, err := io.ReadAll(io.LimitReader(f, 100))
	if err != nil {
		return wgtypes.Key{}, err
	}
	key, err := wgtypes.ParseKey(strings.TrimSpace(string(b)))
	if err != nil || key == (wgtypes.Key{}) {
		return wgtypes.Key{}, errors.New("it has no private key: want 32 bytes in base64")
	}
	return key, nil
}

// makeKey writes a new key. The file is there whole or not at all; one that is there is os.ErrExist.
func makeKey(path string) (err error) {
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+keyFile+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString(key.String() + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}
