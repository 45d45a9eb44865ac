package floor

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// List sends a request for a table and makes a list of the answer. The answers are
// kept until the last has come, so that the list is allocated once.
func List[T any](s *Socket, request []byte, decode func(*T, []byte)) ([]T, error) {
	n, err := s.dump(request, true, nil)
	if err != nil {
		return nil, err
	}
	all := make([]T, n)
	b := s.kept
	for i := range all {
		size := binary.NativeEndian.Uint32(b)
		decode(&all[i], b[unix.SizeofNlMsghdr:size])
		b = b[(size+3)&^3:]
	}
	return all, nil
}

// Dump sends a request for a table and counts the messages of the answer; each
// gets every one of them.
func (s *Socket) Dump(request []byte, each func(body []byte)) (int, error) {
	return s.dump(request, false, each)
}

func (s *Socket) dump(request []byte, keep bool, each func(body []byte)) (int, error) {
	s.number(request)
	if err := write(s.fd, request); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	count, used := 0, 0
	for {
		buf := s.buf
		if keep {
			if len(s.kept)-used < len(s.buf) {
				s.kept = append(s.kept[:used], make([]byte, used+len(s.buf))...)
			}
			buf = s.kept[used:]
		}
		n, err := read(s.fd, buf)
		if err != nil {
			return 0, fmt.Errorf("receive: %w", err)
		}
		used += n
		for b := buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return 0, fmt.Errorf("malformed answer")
			}
			switch binary.NativeEndian.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return count, nil
			case unix.NLMSG_ERROR:
				return 0, syscall.Errno(-int32(binary.NativeEndian.Uint32(b[16:])))
			}
			count++
			if !keep {
				each(b[unix.SizeofNlMsghdr:size])
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// Attrs steps over the attributes in a message.
type Attrs struct {
	Rest []byte // what has not been stepped over
	Type uint16
	Data []byte // the payload of the current one
}

// Next steps to the next attribute.
func (a *Attrs) Next() bool {
	if len(a.Rest) < 4 {
		return false
	}
	n := int(binary.NativeEndian.Uint16(a.Rest))
	if n < 4 || n > len(a.Rest) {
		return false
	}
	a.Type, a.Data = binary.NativeEndian.Uint16(a.Rest[2:])&0x3fff, a.Rest[4:n]
	a.Rest = a.Rest[min((n+3)&^3, len(a.Rest)):]
	return true
}

// U32 reads a number.
func (a *Attrs) U32() uint32 { return binary.NativeEndian.Uint32(a.Data) }
