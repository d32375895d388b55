"""An authorization server for the end-to-end tests: django-oauth-toolkit as
Debian packages it, in a project of one file, with its tables in a file of a
temporary folder, on a free port of the loopback interface.

It reads its clients and users as JSON from the environment variable AS_CONFIG
and prints one line of JSON, which names the issuer, when it is ready. It stops
at the end of standard input.

A client has one grant type, as in every Application of django-oauth-toolkit:
"password" or "client-credentials".
"""

import json
import os
import secrets
import sys
import tempfile
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import django
import oauth2_provider
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

if "--check" in sys.argv:
    sys.exit(0)

config = json.loads(os.environ["AS_CONFIG"])
folder = tempfile.TemporaryDirectory(prefix="e2e-django-")

settings.configure(
    SECRET_KEY=secrets.token_hex(),
    ALLOWED_HOSTS=["*"],  # the edge in front passes its own
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    MIDDLEWARE=[],
    # Only a place for users, with nothing that slows the tests down.
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF="urls",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(folder.name, "db.sqlite3"),
            "OPTIONS": {"timeout": 20},
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    OAUTH2_PROVIDER={
        "ACCESS_TOKEN_EXPIRE_SECONDS": config["lifetime"],
        "SCOPES": {"read": "Reading scope", "introspection": "Introspection"},
    },
)

# The module that ROOT_URLCONF names.
urls = type(sys)("urls")
sys.modules["urls"] = urls
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.urls import include, path  # noqa: E402
from oauth2_provider.models import Application  # noqa: E402

# As its documentation has it.
urls.urlpatterns = [path("o/", include("oauth2_provider.urls", namespace="oauth2_provider"))]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Handler(WSGIRequestHandler):
    def log_message(self, *args):
        pass  # what was asked for is the tests' own business


call_command("migrate", verbosity=0, run_syncdb=True)
for name, password in config["users"].items():
    User.objects.create_user(name, password=password)
for client in config["clients"]:
    Application.objects.create(
        client_id=client["id"],
        client_secret=client["secret"],
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=client["grant"],
    )

server = Server(("127.0.0.1", 0), Handler)
server.set_app(get_wsgi_application())
threading.Thread(target=server.serve_forever, daemon=True).start()
print(
    json.dumps(
        {"issuer": f"http://127.0.0.1:{server.server_port}/o", "version": oauth2_provider.__version__}
    ),
    flush=True,
)

# Nobody is left to stop the server when the test process is gone.
sys.stdin.read()
folder.cleanup()
