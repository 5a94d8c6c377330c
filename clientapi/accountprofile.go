package clientapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/media"
)

const (
	maxAvatar      = 8 << 20 // bytes of a picture that is sent from a page
	maxAvatarShown = 512 << 10
	avatarPixels   = 96
)

// avatarTypes are what browsers show as pictures. What a picture really is media looks at.
var avatarTypes = []string{"image/png", "image/jpeg", "image/webp", "image/gif"}

// profileData is what the page of the profile shows.
type profileData struct {
	Name        string
	NameFixed   bool // the server does not let its users change it
	AvatarFixed bool
	HasAvatar   bool
	Picture     template.URL // the avatar itself, "" if it is not to be had now
}

// profilePage shows the name and the avatar of whoever has signed in.
func (s *Server) profilePage(r *Request, b *browser, p page) (any, error) {
	profile, err := s.Accounts.Profile(r.Ctx(), b.Who.User)
	if err != nil {
		return nil, err
	}
	avatar := profile.Text(accounts.AvatarURL)
	p.Title, p.Data = "profile_title", profileData{
		Name: profile.Text(accounts.DisplayName), HasAvatar: avatar != "", Picture: s.picture(r, b.Who.User, avatar),
		NameFixed:   slices.Contains(s.Config.Profiles.Fixed, accounts.DisplayName),
		AvatarFixed: slices.Contains(s.Config.Profiles.Fixed, accounts.AvatarURL),
	}
	return s.carePage(r, b, "profile", p)
}

// picture is a small picture of some media as part of a page: the page has no token to fetch it with.
func (s *Server) picture(r *Request, user store.UserNID, uri string) template.URL {
	server, id, ok := strings.Cut(strings.TrimPrefix(uri, "mxc://"), "/")
	if !ok || matrix.ServerName(server) != matrix.ServerName(s.Config.ServerName) {
		return ""
	}
	size := store.ThumbnailSize{Width: avatarPixels, Height: avatarPixels, Crop: true}
	c, err := s.Media.Thumbnail(r.Ctx(), media.Query{Server: matrix.ServerName(server), ID: id, User: user}, size)
	if err != nil {
		return "" // a page without a picture is better than none
	}
	defer c.File.Close() //nolint:errcheck // it was read
	raw, err := io.ReadAll(io.LimitReader(c.File, maxAvatarShown+1))
	if err != nil || len(raw) > maxAvatarShown || !slices.Contains(avatarTypes, c.Type) {
		return ""
	}
	return template.URL("data:" + c.Type + ";base64," + base64.StdEncoding.EncodeToString(raw)) //nolint:gosec // a picture
}

// caring lets a request act as whoever has signed in, where what they do is also what clients do.
func (s *Server) caring(r *Request, b *browser) error {
	r.Session = b.Who.Caring(b.SignIn)
	if r.Session.Suspended {
		return matrix.UserSuspended()
	}
	return nil
}

// changeProfileHere changes a field of the profile of whoever has signed in, and says how it went.
func (s *Server) changeProfileHere(r *Request, b *browser, field string, value json.RawMessage) (any, error) {
	err := s.caring(r, b)
	if err == nil {
		err = s.putProfile(r, field, value)
	}
	return s.profileChanged(r, b, err)
}

func (s *Server) profileChanged(r *Request, b *browser, err error) (any, error) {
	var known *matrix.Error
	switch {
	case err == nil:
		return s.profilePage(r, b, page{Notice: words(r).say("saved")})
	case !errors.As(err, &known):
		return nil, err
	}
	refused := map[string]string{"M_USER_SUSPENDED": "suspended", "M_TOO_LARGE": "avatar_large"}[known.Code]
	if refused == "" {
		refused = "not_saved"
	}
	return s.profilePage(r, b, page{Status: known.Status, Error: words(r).say(problem(known, refused))})
}

func (s *Server) newDisplayName(r *Request, b *browser, form url.Values) (any, error) {
	name := strings.TrimSpace(form.Get("displayname"))
	if len(name) > 1024 {
		return s.profileChanged(r, b, matrix.InvalidParam("A name has at most 1024 bytes."))
	}
	if name == "" {
		return s.changeProfileHere(r, b, accounts.DisplayName, nil)
	}
	value, err := json.Marshal(name)
	if err != nil {
		return nil, err
	}
	return s.changeProfileHere(r, b, accounts.DisplayName, value)
}

func (s *Server) removeAvatar(r *Request, b *browser, _ url.Values) (any, error) {
	return s.changeProfileHere(r, b, accounts.AvatarURL, nil)
}

// newAvatar takes a picture that a page has sent, and makes it the avatar.
func (s *Server) newAvatar(r *Request) (any, error) {
	if !s.fromHere(r.Request()) {
		return nil, errForged
	}
	parts, err := r.Request().MultipartReader()
	if err != nil {
		return nil, errForged
	}
	csrf, err := formPart(parts, "csrf")
	if err != nil {
		return nil, errForged
	}
	token, err := io.ReadAll(io.LimitReader(csrf, maxParameter))
	if err != nil {
		return nil, errForged
	}
	b, err := s.visitor(r, []string{string(token)})
	if err != nil {
		return nil, err
	}
	if b.Visit.Purpose != accounts.ToManage || !b.signedIn() {
		return turnTo(r, signInPageAt)
	}
	if b.Who.MustEnrol {
		return s.securityPage(r, b, page{})
	}
	return s.takeAvatar(r, b, parts)
}

func (s *Server) takeAvatar(r *Request, b *browser, parts *multipart.Reader) (any, error) {
	if err := s.caring(r, b); err != nil {
		return s.profileChanged(r, b, err)
	}
	file, err := formPart(parts, "avatar")
	kind := ""
	if err == nil {
		kind = file.Header.Get("Content-Type")
	}
	if err != nil || !slices.Contains(avatarTypes, kind) || slices.Contains(s.Config.Profiles.Fixed, accounts.AvatarURL) {
		return s.profilePage(r, b, page{Status: http.StatusBadRequest, Error: words(r).say("avatar_kind")})
	}
	id, err := s.Media.Upload(r.Ctx(), r.Session.User, media.Upload{Type: kind, Length: -1, Body: file})
	if err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			err = matrix.TooLarge("The picture is larger than %d bytes.", maxAvatar)
		}
		return s.profileChanged(r, b, err)
	}
	value, err := json.Marshal(s.Media.URI(id))
	if err != nil {
		return nil, err
	}
	return s.changeProfileHere(r, b, accounts.AvatarURL, value)
}

// formPart is the next part of a form, which has to be the one of a name.
func formPart(parts *multipart.Reader, name string) (*multipart.Part, error) {
	part, err := parts.NextPart()
	if err != nil {
		return nil, err
	}
	if part.FormName() != name {
		return nil, errForged
	}
	return part, nil
}
