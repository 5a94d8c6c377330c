package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/minio/minio-go/v7"

	"conclave/internal/store"
)

// An upload that comes in pieces is a multipart upload of S3. S3 takes no piece but the last below 5 MiB, and clients send
// what they can: the bytes behind the last whole piece are an object of their own, the tail, which is read again and
// written as a piece once there are enough. So nothing that was acknowledged is on this node, and any node can go on.

func (b *bucket) take(ctx context.Context, u *store.MediaUpload, in io.Reader) (made *piece, err error) {
	ctx, cancel := context.WithTimeout(ctx, bucketPut)
	defer cancel()
	f, err := b.scratch(newKey())
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	sum := sha256.New()
	out := io.MultiWriter(f, sum)
	old, err := b.readTail(ctx, u, out)
	if err != nil {
		return nil, err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{out}, io.LimitReader(in, pieceBytes-old), make([]byte, copyBuffer))
	if err != nil || n == 0 {
		return nil, err
	}
	all := io.NewSectionReader(f, 0, old+n)
	if old+n < pieceBytes && u.Received+n < u.Length {
		return nil, b.writeTail(ctx, u, all, n, sum.Sum(nil))
	}
	return b.writePiece(ctx, u, all, n, sum.Sum(nil))
}

// readTail copies the tail of an upload and says how long it is.
func (b *bucket) readTail(ctx context.Context, u *store.MediaUpload, out io.Writer) (int64, error) {
	size := u.Received % pieceBytes
	if size == 0 {
		return 0, nil
	}
	tail, err := b.open(ctx, u.Tail, size)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errLost
	}
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, tail)
	return n, errors.Join(err, tail.Close())
}

// writeTail stores bytes, the last n of which are new, as the tail. Its marker is the caller's to remove, once a row names it.
func (b *bucket) writeTail(ctx context.Context, u *store.MediaUpload, all *io.SectionReader, n int64, sum []byte) error {
	key := newKey()
	if err := b.mark(key); err != nil {
		return err
	}
	if _, err := b.write(ctx, b.object(key), all, all.Size(), sum); err != nil {
		return b.fails(ctx, "storing a part of an upload", err)
	}
	u.Tail = key
	u.Received += n
	return nil
}

// noUpload says whether the S3 service has no such multipart upload.
func noUpload(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && answer.Code == minio.NoSuchUpload
}

// writePiece stores bytes, the last n of which are new, as a piece.
func (b *bucket) writePiece(ctx context.Context, u *store.MediaUpload, all *io.SectionReader, n int64, sum []byte) (*piece, error) {
	if u.Place == "" {
		place, err := b.core.NewMultipartUpload(ctx, b.name, b.object(u.File), minio.PutObjectOptions{})
		if err != nil {
			return nil, b.fails(ctx, "beginning an upload", err)
		}
		u.Place = place
	}
	number := int((u.Received+n-all.Size())/pieceBytes) + 1
	o := minio.PutObjectPartOptions{Sha256Hex: fmt.Sprintf("%x", sum), DisableContentSha256: true}
	part, err := b.core.PutObjectPart(ctx, b.name, b.object(u.File), u.Place, number, all, all.Size(), o)
	if err != nil {
		if noUpload(err) {
			return nil, errLost
		}
		return nil, b.fails(ctx, "storing a piece of an upload", err)
	}
	u.Tail = ""
	u.Received += n
	return &piece{number, part.ETag}, nil
}

func (b *bucket) finish(ctx context.Context, u store.MediaUpload, pieces []piece) error {
	if have, err := b.size(ctx, u.File); err == nil && have == u.Length {
		return nil // a crash came after it was put together
	}
	if u.Length == 0 { // S3 puts nothing together out of nothing
		_, err := b.write(ctx, b.object(u.File), bytes.NewReader(nil), 0, sumOf(nil))
		return b.fails(ctx, "storing a file", err)
	}
	parts := make([]minio.CompletePart, len(pieces))
	for i, p := range pieces {
		parts[i] = minio.CompletePart{PartNumber: p.number, ETag: p.etag}
	}
	if _, err := b.core.CompleteMultipartUpload(ctx, b.name, b.object(u.File), u.Place, parts, minio.PutObjectOptions{}); err != nil {
		return b.fails(ctx, "putting an upload together", err)
	}
	have, err := b.size(ctx, u.File)
	if err == nil && have != u.Length {
		err = b.fails(ctx, "putting an upload together", fmt.Errorf("it has %d bytes instead of %d", have, u.Length))
	}
	return err
}

func (b *bucket) abandon(ctx context.Context, key string) error {
	if err := b.remove(ctx, key); err != nil {
		return err
	}
	err := b.core.RemoveIncompleteUpload(ctx, b.name, b.object(key))
	if noUpload(err) {
		return nil
	}
	return b.fails(ctx, "giving up an upload", err)
}
